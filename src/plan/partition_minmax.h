#pragma once
// The optimal cut. Private to src/plan; partition.h is the door, and checks the arguments.
#include <span>

#include "plan/partition.h"

namespace penstock::plan {

// Stages of [first, last) layers weigh the difference of `weight` there, and hold the difference of `memory`; both are running sums
// (num_layers + 1 values from 0). nullopt when no cut into non-empty stages keeps `memory_limit` (0 = none).
[[nodiscard]] std::optional<Boundaries> minmax_cut(std::span<const double> weight, std::span<const double> memory, double memory_limit, int num_stages);

}  // namespace penstock::plan
