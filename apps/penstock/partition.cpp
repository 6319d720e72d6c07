// `penstock partition`: which layers each pipeline stage would get.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "commands.h"
#include "formats/model_folder.h"
#include "plan/model_layers.h"
#include "plan/partition.h"

namespace penstock {
namespace {

struct PartitionOptions {
  std::string weights;
  std::string types;
  std::string model;
  plan::PartitionRequest request;
  double memory_limit_gib = 0;
};

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> parts;
  for (size_t end; (end = text.find(',')) != std::string_view::npos; text.remove_prefix(end + 1)) parts.emplace_back(text.substr(0, end));
  parts.emplace_back(text);
  return parts;
}

double parse_weight(std::string_view text, size_t layer) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  double weight = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), weight);
  if (status != std::errc() || end != text.data() + text.size() || !std::isfinite(weight)) {
    throw error(Code::kInvalidArgument, "--weights: layer {}: expected a number, found '{}'", layer, text.substr(0, 80));
  }
  return weight;
}

std::vector<plan::LayerCost> layers_of_weights(const PartitionOptions& options) {
  std::vector<plan::LayerCost> layers;
  for (const std::string& text : split(options.weights)) layers.push_back({"layer", parse_weight(text, layers.size()), 0});
  if (options.types.empty()) return layers;
  const auto types = split(options.types);
  if (types.size() != layers.size()) throw error(Code::kInvalidArgument, "--types: expected {}, one for each weight, found {}", layers.size(), types.size());
  for (size_t i = 0; i < layers.size(); ++i) layers[i].type = types[i];
  return layers;
}

std::string table(const std::vector<plan::ModelLayer>& layers, const plan::Boundaries& boundaries) {
  int64_t heaviest = 0, all = 0;
  std::string rows;
  for (size_t stage = 0; stage + 1 < boundaries.size(); ++stage) {
    const auto first = layers.begin() + boundaries[stage], last = layers.begin() + boundaries[stage + 1];
    const int64_t parameters = std::accumulate(first, last, int64_t{0}, [](int64_t sum, const auto& layer) { return sum + layer.parameters; });
    const int64_t bytes = std::accumulate(first, last, int64_t{0}, [](int64_t sum, const auto& layer) { return sum + layer.bytes; });
    const std::string names = first == last ? "-" : first + 1 == last ? first->name : fmt::format("{} … {}", first->name, (last - 1)->name);
    rows += fmt::format("{:>5}  {:>6}  {:>16}  {:>10.1f}  {}\n", stage, last - first, parameters, static_cast<double>(bytes) / (1 << 20), names);
    heaviest = std::max(heaviest, parameters);
    all += parameters;
  }
  const double even = static_cast<double>(all) / static_cast<double>(boundaries.size() - 1);
  return fmt::format("stage  layers        parameters         MiB  which\n{}boundaries {}; the heaviest stage has {:.2f} x an even share\n", rows,
                     fmt::join(boundaries, ","), even > 0 ? static_cast<double>(heaviest) / even : 1);
}

void partition(PartitionOptions options) {
  try {
    if (options.weights.empty() == options.model.empty()) throw error(Code::kInvalidArgument, "expected one of --weights and --model");
    if (!(options.memory_limit_gib >= 0 && options.memory_limit_gib < 1e9)) {
      throw error(Code::kInvalidArgument, "--memory-limit: expected GiB from 0 to 1e9, found {}", options.memory_limit_gib);
    }
    if (!options.weights.empty()) {
      if (options.memory_limit_gib > 0) throw error(Code::kInvalidArgument, "--memory-limit: weights have no bytes; use it with --model");
      return fmt::print("{}\n", fmt::join(plan::partition(layers_of_weights(options), options.request).value(), ","));
    }
    if (!options.types.empty()) throw error(Code::kInvalidArgument, "--types: a model's layers have their types; use it with --weights");
    const auto layers = plan::layers_of_model(formats::list_model_tensors(options.model).value()).value();
    options.request.memory_limit = options.memory_limit_gib * (1 << 30);
    std::vector<plan::LayerCost> costs;
    for (const auto& layer : layers) costs.push_back({layer.type, static_cast<double>(layer.parameters), static_cast<double>(layer.bytes)});
    fmt::print("{}", table(layers, plan::partition(costs, options.request).value()));
  } catch (const Error& e) {
    fail("partition", e);
  }
}

}  // namespace

void add_partition_command(CLI::App& app) {
  auto options = std::make_shared<PartitionOptions>();
  auto* command = app.add_subcommand("partition", "Show which layers each pipeline stage would get");
  command->add_option("--weights", options->weights, "What each layer weighs: numbers separated by commas")->type_name("W,W,...");
  command->add_option("--types", options->types, "The type of each layer, for --method type:REGEX")->type_name("T,T,...");
  command->add_option("--model", options->model, "A Hugging Face directory: its layers weigh their parameters")->type_name("DIR");
  command->add_option("--stages", options->request.num_stages, "Number of stages")->required();
  command->add_option("--method", options->request.method, plan::partition_methods())->capture_default_str();
  command->add_option("--memory-limit", options->memory_limit_gib, "GiB of weights that a stage may hold (minmax, parameters)");
  command->add_flag("--allow-empty", options->request.allow_empty, "Stages without a layer may stand");
  command->footer("minmax makes the heaviest stage as light as possible, deepspeed gives the answers of DeepSpeed's partition_balanced.\n"
                  "Prints the first layer of each stage and the number of layers: stage s holds layers b[s] to b[s+1]-1.\n"
                  "Examples:\n"
                  "  penstock partition --weights 1,1,30,3 --stages 3\n"
                  "  penstock partition --weights 1,2,2,1 --types embed,block,block,head --stages 2 --method type:block\n"
                  "  penstock partition --model runs/quickstart/model --stages 4 --method parameters");
  command->callback([options] { partition(*options); });
}

}  // namespace penstock
