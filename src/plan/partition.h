#pragma once
// Which layers each pipeline stage gets: consecutive, all of them.
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

// What is known of a layer before it is built.
struct LayerCost {
  std::string type;         // for type:REGEX
  double weight = 0;        // parameters, time, or what else shall be balanced
  double memory_bytes = 0;  // held by the stage that has it: weights, their gradients and optimizer state, activations of all live micro-batches
};

struct PartitionRequest {
  // minmax       the heaviest stage as light as possible: it sets the pipeline's pace. Among all such cuts the one with the smallest sum of
  //              squared stage weights (the most even), then the one whose earlier stages hold more layers.
  // parameters   minmax; the weights are numbers of parameters
  // uniform      equal counts of layers; when they do not divide, the first stages get one layer more
  // type:REGEX   minmax, a layer weighs 1 when REGEX (ECMAScript, any case) is found in its type, else 0
  // deepspeed    the smallest difference between heaviest and lightest stage as DeepSpeed's partition_balanced finds it, ties included
  // 0,3,5        the boundaries themselves
  std::string method = "minmax";
  int num_stages = 1;
  // Stages without a layer may stand, where a method makes them (fewer layers than stages, equal boundaries).
  bool allow_empty = false;
  // Bytes that a stage may hold; minmax, parameters and type cut within it, the others refuse what exceeds it. 0 = no limit.
  double memory_limit = 0;
};

// Every answer covers every layer exactly once. kInvalidArgument names the field: no stage, fewer layers than stages (unless allow_empty), more
// than 4096 layers, a weight that is negative or not a number, an unknown method, a bad regular expression or one that no type matches, boundaries
// that do not rise from 0 to the number of layers, a memory limit that no cut keeps (names the layer or the number of stages that would do).
[[nodiscard]] Result<Boundaries> partition(std::span<const LayerCost> layers, const PartitionRequest& request);

// The same for weights alone.
[[nodiscard]] Result<Boundaries> partition(std::span<const double> weights, const PartitionRequest& request);

// One line for help texts and errors.
[[nodiscard]] std::string partition_methods();

// nullopt when `boundaries` cut `num_layers` layers as described above; otherwise what is wrong.
[[nodiscard]] std::optional<std::string> check_boundaries(std::span<const int> boundaries, int num_layers, int num_stages, bool allow_empty = false);

}  // namespace penstock::plan
