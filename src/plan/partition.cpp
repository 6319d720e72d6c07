#include "plan/partition.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <regex>

#include "base/shown.h"
#include "plan/partition_minmax.h"

namespace penstock::plan {

namespace {

constexpr size_t kMaxLayers = 4096;
constexpr double kMaxBalancedSteps = 4e9;  // of DeepSpeed's search: layers² · stages / 2
constexpr size_t kMaxRegex = 1000;         // characters
constexpr size_t kMaxType = 1000;
constexpr double kMaxSum = 1e150;          // squares of it still fit a double

// Running sums: prefix[i] = of the first i values.
std::vector<double> prefix_sums(std::span<const double> values) {
  std::vector<double> prefix = {0};
  for (const double value : values) prefix.push_back(prefix.back() + value);
  return prefix;
}

std::optional<Error> check_request(size_t num_layers, const PartitionRequest& request) {
  const int stages = request.num_stages;
  if (stages < 1 || static_cast<size_t>(stages) > kMaxLayers) {
    return error(Code::kInvalidArgument, "stages: expected 1 to {}, found {}", kMaxLayers, stages);
  }
  if (num_layers < 1 || num_layers > kMaxLayers) return error(Code::kInvalidArgument, "layers: expected 1 to {}, found {}", kMaxLayers, num_layers);
  if (num_layers < static_cast<size_t>(stages) && !request.allow_empty) {
    return error(Code::kInvalidArgument, "stages: {} layers cannot fill {} stages; use at most {} stages, or allow empty ones", num_layers, stages,
                 num_layers);
  }
  if (!(request.memory_limit >= 0)) return error(Code::kInvalidArgument, "memory limit: expected bytes >= 0, found {}", request.memory_limit);
  return std::nullopt;
}

std::optional<Error> check_weights(std::span<const double> weights) {
  double sum = 0;
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    if (!std::isfinite(weights[layer]) || weights[layer] < 0) {
      return error(Code::kInvalidArgument, "weights: layer {} weighs {}; expected a number >= 0", layer, weights[layer]);
    }
    sum += weights[layer];
  }
  if (sum > kMaxSum) return error(Code::kInvalidArgument, "weights: their sum is {:g}; expected at most {:g}", sum, kMaxSum);
  return std::nullopt;
}

// Stage s ends at layer s+1 as long as there are layers.
Boundaries one_layer_each(int num_layers, int num_stages) {
  Boundaries boundaries;
  for (int stage = 0; stage <= num_stages; ++stage) boundaries.push_back(std::min(stage, num_layers));
  return boundaries;
}

Boundaries uniform(int num_layers, int num_stages) {
  if (num_layers <= num_stages) return one_layer_each(num_layers, num_stages);
  const int each = num_layers / num_stages;
  const int left_over = num_layers % num_stages;
  Boundaries boundaries = {0};
  for (int stage = 0; stage < num_stages; ++stage) boundaries.push_back(boundaries.back() + each + (stage < left_over ? 1 : 0));
  return boundaries;
}

// DeepSpeed's partition_balanced: a table over (layers, stages) that keeps, for each, one cut of the smallest spread between its heaviest and
// its lightest stage; the last cut wins ties. A cut of fewer stages is not looked at again, so the answer need not be the best; it is DeepSpeed's.
Boundaries balanced(std::span<const double> weights, int num_stages) {
  const size_t n = weights.size(), p = static_cast<size_t>(num_stages);
  if (n <= p) return one_layer_each(static_cast<int>(n), num_stages);
  struct Cell {
    double spread = std::numeric_limits<double>::infinity();
    double heaviest = std::numeric_limits<double>::infinity();
    double lightest = std::numeric_limits<double>::infinity();
    int cut = -1;
  };
  const std::vector<double> prefix = prefix_sums(weights);
  std::vector<Cell> cells((n + 1) * (p + 1));
  const auto cell = [&](size_t layers, size_t stages) -> Cell& { return cells[layers * (p + 1) + stages]; };
  cell(0, 0).spread = cell(0, 0).heaviest = 0;
  for (size_t layers = 1; layers <= n; ++layers) {
    for (size_t stages = 1; stages <= std::min(layers, p); ++stages) {
      Cell& best = cell(layers, stages);
      for (size_t cut = 0; cut < layers; ++cut) {
        const Cell& before = cell(cut, stages - 1);
        const double last = prefix[layers] - prefix[cut];
        const double heaviest = std::max(before.heaviest, last), lightest = std::min(before.lightest, last);
        if (best.spread >= heaviest - lightest) best = {heaviest - lightest, heaviest, lightest, static_cast<int>(cut)};
      }
    }
  }
  Boundaries boundaries(p + 1, static_cast<int>(n));
  for (size_t stages = p; stages > 0; --stages) boundaries[stages - 1] = cell(static_cast<size_t>(boundaries[stages]), stages).cut;
  return boundaries;
}

Result<Boundaries> by_minmax(std::span<const double> weights, std::span<const LayerCost> layers, const PartitionRequest& request) {
  if (weights.size() < static_cast<size_t>(request.num_stages)) return one_layer_each(static_cast<int>(weights.size()), request.num_stages);
  std::vector<double> memory = {0};
  for (const LayerCost& layer : layers) memory.push_back(memory.back() + layer.memory_bytes);
  auto cut = minmax_cut(prefix_sums(weights), memory, request.memory_limit, request.num_stages);
  if (cut) return *cut;
  const auto heaviest = std::ranges::max_element(layers, {}, &LayerCost::memory_bytes);
  if (heaviest->memory_bytes > request.memory_limit) {
    return error(Code::kInvalidArgument, "memory limit: layer {} ({}) alone holds {:.0f} bytes; a stage may hold {:.0f}", heaviest - layers.begin(),
                 heaviest->type, heaviest->memory_bytes, request.memory_limit);
  }
  int enough = request.num_stages + 1;
  while (static_cast<size_t>(enough) < weights.size() && !minmax_cut(prefix_sums(weights), memory, request.memory_limit, enough)) ++enough;
  return error(Code::kInvalidArgument, "memory limit: the layers hold {:.0f} bytes in all, no cut into {} stages keeps each within {:.0f}; {} stages would do",
               memory.back(), request.num_stages, request.memory_limit, enough);
}

Result<Boundaries> by_type(std::span<const LayerCost> layers, const PartitionRequest& request) {
  const std::string pattern = request.method.substr(std::string_view("type:").size());
  if (pattern.empty() || pattern.size() > kMaxRegex) {
    return error(Code::kInvalidArgument, "partition: type: expected a regular expression of 1 to {} characters, found {}", kMaxRegex, pattern.size());
  }
  std::vector<double> weights;
  try {
    const std::regex type(pattern, std::regex::ECMAScript | std::regex::icase | std::regex_constants::__polynomial);  // no backtracking
    for (const LayerCost& layer : layers) {
      if (layer.type.size() > kMaxType) {
        return error(Code::kInvalidArgument, "partition: a layer's type has {} characters; expected at most {}", layer.type.size(), kMaxType);
      }
      weights.push_back(std::regex_search(layer.type, type) ? 1 : 0);
    }
  } catch (const std::regex_error& wrong) {
    return error(Code::kInvalidArgument, "partition: '{}' is no regular expression: {}", shown(pattern), wrong.what());
  }
  if (std::ranges::count(weights, 1.0) == 0) {
    std::vector<std::string> types;
    for (const LayerCost& layer : layers) {
      if (std::ranges::find(types, layer.type) == types.end()) types.push_back(layer.type);
    }
    return error(Code::kInvalidArgument, "partition: no layer's type matches '{}'; the types are {}", shown(pattern), fmt::join(types, ", "));
  }
  return by_minmax(weights, layers, request);
}

// "0,3,5"; nullopt when the text is not a list of integers.
std::optional<Boundaries> parse_boundaries(std::string_view text) {
  Boundaries boundaries;
  while (true) {
    while (text.starts_with(' ')) text.remove_prefix(1);
    int value = 0;
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (status != std::errc()) return std::nullopt;
    boundaries.push_back(value);
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    while (text.starts_with(' ')) text.remove_prefix(1);
    if (text.empty()) return boundaries;
    if (text.front() != ',') return std::nullopt;
    text.remove_prefix(1);
  }
}

// For methods that cut without looking at it.
std::optional<Error> check_memory(const Boundaries& boundaries, std::span<const double> memory, double limit) {
  for (size_t stage = 0; limit > 0 && stage + 1 < boundaries.size(); ++stage) {
    double held = 0;
    for (int layer = boundaries[stage]; layer < boundaries[stage + 1]; ++layer) held += memory[static_cast<size_t>(layer)];
    if (held <= limit) continue;
    return error(Code::kInvalidArgument, "memory limit: stage {} would hold {:.0f} bytes, it may hold {:.0f}; use minmax or more stages", stage, held, limit);
  }
  return std::nullopt;
}

Result<Boundaries> by_method(std::span<const LayerCost> layers, std::span<const double> weights, const PartitionRequest& request) {
  const std::string& method = request.method;
  if (method == "minmax" || method == "parameters") return by_minmax(weights, layers, request);
  if (method == "uniform") return uniform(static_cast<int>(weights.size()), request.num_stages);
  if (method == "deepspeed") {
    const double n = static_cast<double>(weights.size());
    if (n * n * request.num_stages / 2 > kMaxBalancedSteps) {
      return error(Code::kInvalidArgument, "partition: deepspeed's search over {} layers and {} stages takes too long; use minmax", weights.size(), request.num_stages);
    }
    return balanced(weights, request.num_stages);
  }
  if (method.starts_with("type:")) return by_type(layers, request);
  if (auto boundaries = parse_boundaries(method)) return *boundaries;
  return error(Code::kInvalidArgument, "partition: no method is called '{}'; expected {}", shown(method), partition_methods());
}

}  // namespace

Result<Boundaries> partition(std::span<const LayerCost> layers, const PartitionRequest& request) {
  if (auto wrong = check_request(layers.size(), request)) return *wrong;
  std::vector<double> weights, memory;
  for (const LayerCost& layer : layers) {
    weights.push_back(layer.weight);
    memory.push_back(layer.memory_bytes);
  }
  if (auto wrong = check_weights(weights)) return *wrong;
  if (auto wrong = check_weights(memory)) return error(Code::kInvalidArgument, "memory of layers: {}", wrong->message());
  auto boundaries = by_method(layers, weights, request);
  if (!boundaries) return boundaries.error();
  if (const auto problem = check_boundaries(*boundaries, static_cast<int>(layers.size()), request.num_stages, request.allow_empty)) {
    return error(Code::kInvalidArgument, "partition: {}", *problem);
  }
  if (auto wrong = check_memory(*boundaries, memory, request.memory_limit)) return *wrong;
  return boundaries;
}

Result<Boundaries> partition(std::span<const double> weights, const PartitionRequest& request) {
  std::vector<LayerCost> layers;
  for (const double weight : weights) layers.push_back({"layer", weight, 0});
  return partition(layers, request);
}

std::string partition_methods() { return "minmax, parameters, uniform, deepspeed, type:REGEX or boundaries such as 0,3,5"; }

std::optional<std::string> check_boundaries(std::span<const int> boundaries, int num_layers, int num_stages, bool allow_empty) {
  const std::string found = fmt::format("boundaries {}", shown(fmt::format("{}", fmt::join(boundaries, ","))));
  if (boundaries.size() != static_cast<size_t>(num_stages) + 1) {
    return fmt::format("{}: expected {} numbers for {} stages, found {}", found, num_stages + 1, num_stages, boundaries.size());
  }
  if (boundaries.front() != 0 || boundaries.back() != num_layers) {
    return fmt::format("{}: expected to run from 0 to the model's {} layers", found, num_layers);
  }
  for (size_t stage = 0; stage + 1 < boundaries.size(); ++stage) {
    if (boundaries[stage] > boundaries[stage + 1]) return fmt::format("{}: expected rising numbers", found);
    if (boundaries[stage] == boundaries[stage + 1] && !allow_empty) return fmt::format("{}: stage {} would hold no layer", found, stage);
  }
  return std::nullopt;
}

}  // namespace penstock::plan
