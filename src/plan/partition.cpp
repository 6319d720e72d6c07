#include "plan/partition.h"

#include <algorithm>
#include <limits>

namespace penstock::plan {

namespace {

constexpr int kMaxLayers = 4096;

std::optional<Error> check_counts(size_t num_layers, int num_stages) {
  if (num_stages < 1) return error(Code::kInvalidArgument, "stages: expected at least 1, found {}", num_stages);
  if (num_layers > kMaxLayers) return error(Code::kInvalidArgument, "layers: expected at most {}, found {}", kMaxLayers, num_layers);
  if (num_layers < static_cast<size_t>(num_stages)) {
    return error(Code::kInvalidArgument, "stages: {} layers cannot fill {} stages; use at most {} stages", num_layers, num_stages, num_layers);
  }
  return std::nullopt;
}

// Running sums: prefix[i] = weight of the first i layers.
Result<std::vector<int64_t>> prefix_sums(std::span<const int64_t> weights) {
  std::vector<int64_t> prefix = {0};
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    if (weights[layer] < 0) {
      return error(Code::kInvalidArgument, "weights: layer {} weighs {}; expected at least 0", layer, weights[layer]);
    }
    if (weights[layer] > std::numeric_limits<int64_t>::max() - prefix.back()) {
      return error(Code::kInvalidArgument, "weights: the sum of the first {} layers does not fit 64 bits", layer + 1);
    }
    prefix.push_back(prefix.back() + weights[layer]);
  }
  return prefix;
}

// Filling each stage up to `limit` needs the fewest stages. Stages that are then left over can always be filled by
// splitting others, as there are at least as many layers as stages.
bool fits(const std::vector<int64_t>& prefix, int num_stages, int64_t limit) {
  size_t first = 0;
  for (int stage = 0; stage < num_stages && first + 1 < prefix.size(); ++stage) {
    size_t end = first;
    while (end + 1 < prefix.size() && prefix[end + 1] - prefix[first] <= limit) ++end;
    if (end == first) return false;
    first = end;
  }
  return first + 1 == prefix.size();
}

int64_t smallest_possible_maximum(const std::vector<int64_t>& prefix, int num_stages) {
  int64_t low = 0;
  int64_t high = prefix.back();
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (fits(prefix, num_stages, middle)) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// best[stage][layer]: the smallest sum of squares when the stages from `stage` on hold the layers from `layer` on and none of them
// weighs more than `limit`; cut[stage][layer]: where that first stage ends. Filled from the last stage to the first.
Boundaries most_even_cut(const std::vector<int64_t>& prefix, int num_stages, int64_t limit) {
  const size_t num_layers = prefix.size() - 1;
  const auto stages = static_cast<size_t>(num_stages);
  constexpr double kImpossible = std::numeric_limits<double>::infinity();
  std::vector<double> best(num_layers + 1, kImpossible);
  best[num_layers] = 0;  // no stage left, no layer left
  std::vector<std::vector<int>> cut(stages, std::vector<int>(num_layers + 1, -1));
  for (size_t stage = stages; stage-- > 0;) {
    std::vector<double> with_stage(num_layers + 1, kImpossible);
    for (size_t first = 0; first < num_layers; ++first) {
      for (size_t end = first + 1; end <= num_layers && prefix[end] - prefix[first] <= limit; ++end) {
        const auto weight = static_cast<double>(prefix[end] - prefix[first]);
        const double cost = weight * weight + best[end];
        if (cost == kImpossible || cost > with_stage[first]) continue;
        with_stage[first] = cost;
        cut[stage][first] = static_cast<int>(end);
      }
    }
    best = std::move(with_stage);
  }
  Boundaries boundaries = {0};
  for (size_t stage = 0; stage < stages; ++stage) boundaries.push_back(cut[stage][static_cast<size_t>(boundaries.back())]);
  return boundaries;
}

}  // namespace

Result<Boundaries> partition_uniform(int num_layers, int num_stages) {
  if (auto wrong = check_counts(static_cast<size_t>(std::max(num_layers, 0)), num_stages)) return *wrong;
  const int each = num_layers / num_stages;
  const int left_over = num_layers % num_stages;
  Boundaries boundaries = {0};
  for (int stage = 0; stage < num_stages; ++stage) boundaries.push_back(boundaries.back() + each + (stage < left_over ? 1 : 0));
  const auto problem = check_boundaries(boundaries, num_layers, num_stages);
  PENSTOCK_CHECK(!problem, "{}", *problem);
  return boundaries;
}

Result<Boundaries> partition_by_weights(std::span<const int64_t> weights, int num_stages) {
  if (auto wrong = check_counts(weights.size(), num_stages)) return *wrong;
  const auto prefix = prefix_sums(weights);
  if (!prefix.ok()) return prefix.error();
  const Boundaries boundaries = most_even_cut(prefix.value(), num_stages, smallest_possible_maximum(prefix.value(), num_stages));
  const auto problem = check_boundaries(boundaries, static_cast<int>(weights.size()), num_stages);
  PENSTOCK_CHECK(!problem, "{}", *problem);
  return boundaries;
}

Result<Boundaries> partition_by_name(std::string_view method, std::span<const int64_t> parameters, int num_stages) {
  if (method == "uniform") {
    if (auto wrong = check_counts(parameters.size(), num_stages)) return *wrong;
    return partition_uniform(static_cast<int>(parameters.size()), num_stages);
  }
  if (method == "parameters") return partition_by_weights(parameters, num_stages);
  return error(Code::kInvalidArgument, "partition: no method is called '{}'; expected uniform or parameters", method);
}

std::optional<std::string> check_boundaries(std::span<const int> boundaries, int num_layers, int num_stages) {
  const std::string shown = fmt::format("boundaries {}", fmt::join(boundaries, ","));
  if (boundaries.size() != static_cast<size_t>(num_stages) + 1) {
    return fmt::format("{}: expected {} numbers for {} stages, found {}", shown, num_stages + 1, num_stages, boundaries.size());
  }
  if (boundaries.front() != 0 || boundaries.back() != num_layers) {
    return fmt::format("{}: expected to run from 0 to the model's {} layers", shown, num_layers);
  }
  for (size_t stage = 0; stage + 1 < boundaries.size(); ++stage) {
    if (boundaries[stage] >= boundaries[stage + 1]) return fmt::format("{}: stage {} would hold no layer", shown, stage);
  }
  return std::nullopt;
}

}  // namespace penstock::plan
