#pragma once
// Which layers each pipeline stage gets: consecutive, all of them, none empty.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::plan {

// Stage s holds layers [boundaries[s], boundaries[s+1]); num_stages + 1 entries, from 0 to the number of layers.
using Boundaries = std::vector<int>;

// Errors of all three: kInvalidArgument when there are fewer layers than stages, no stage, or more than 4096 layers.

// Equal counts; when they do not divide, the first stages get one layer more.
[[nodiscard]] Result<Boundaries> partition_uniform(int num_layers, int num_stages);

// Makes the heaviest stage as light as possible: it sets the pipeline's pace. Among all such cuts takes the one with the smallest
// sum of squared stage weights (the most even), then the one whose earlier stages hold more layers.
// kInvalidArgument also for a negative weight or a sum that does not fit.
[[nodiscard]] Result<Boundaries> partition_by_weights(std::span<const int64_t> weights, int num_stages);

// "uniform", or "parameters" (by weights = parameters of each layer); kInvalidArgument lists them for any other name.
[[nodiscard]] Result<Boundaries> partition_by_name(std::string_view method, std::span<const int64_t> parameters, int num_stages);

// nullopt when `boundaries` cut `num_layers` layers as described above; otherwise what is wrong.
[[nodiscard]] std::optional<std::string> check_boundaries(std::span<const int> boundaries, int num_layers, int num_stages);

}  // namespace penstock::plan
