#include "engine/stage_runner.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/host_memory.h"
#include "base/log.h"
#include "engine/kv_budget.h"
#include "engine/page_pool.h"
#include "engine/weight_budget.h"
#include "kernels/parallel.h"
#include "model/families.h"
#include "model/stored_weights.h"
#include "plan/partition.h"
#include "tensor/device.h"
#include "weights/model_files.h"

namespace penstock::engine {
namespace {

model::TransformerConfig read_config(const std::filesystem::path& model) {
  return model::parse_transformer_config(weights::read_config_json(model).dump(), weights::config_name(model)).value();
}

// Stages beyond the layers have none, and pass on what they get: they stand before the last one, which has the head.
plan::Boundaries cut(const std::vector<model::LayerSpec>& specs, int num_stages) {
  std::vector<double> parameters;
  for (const auto& spec : specs) parameters.push_back(static_cast<double>(spec.num_parameters));
  const int filled = std::min(num_stages, static_cast<int>(specs.size()));
  plan::Boundaries boundaries = plan::partition(parameters, {.method = "parameters", .num_stages = filled}).value();
  const int last = boundaries[boundaries.size() - 2];
  boundaries.insert(boundaries.end() - 1, static_cast<size_t>(num_stages - filled), last);
  return boundaries;
}

// What a model of long sequences has to offer at least, where nobody asked for a length.
constexpr int kLeastSequenceTokens = 2048;

static_assert(kPageTokens == kernels::kPageTokens);

// A GPU multiplies floats: what a file has in blocks becomes those.
StageOptions for_device(StageOptions options) {
  if (options.device.is_cpu()) return options;
  if (options.quantization == model::Quantization::kInt8 || options.quantization == model::Quantization::kInt4) {
    throw error(Code::kUnimplemented,
                "handler.quantization: int8 and int4 weights are multiplied on the CPU, and this stage is on {}; set 'handler.quantization: none', or 'handler.device: cpu'",
                options.device.str());
  }
  options.quantization = model::Quantization::kNone;
  return options;
}

// Memory that a stage on this device can still get, in bytes.
std::optional<int64_t> available_on(const at::Device& device) {
  if (device.is_cpu()) return available_memory();
  const auto memory = tensor::device_memory(device);
  return memory ? std::optional(memory->free) : std::nullopt;
}

}  // namespace

StageRunner::StageRunner(const StageOptions& options)
    : options_(for_device(options)),
      config_(read_config(options.model)),
      team_(at::get_num_threads()) {
  const auto limit = static_cast<int>(config_.max_sequence());
  max_sequence_tokens_ = options.max_sequence_tokens == 0 ? limit : options.max_sequence_tokens;
  if (max_sequence_tokens_ > limit) {
    throw error(Code::kInvalidArgument, "handler.max_sequence_tokens: {} is more than the {} that this model can take (max_position_embeddings {}, sliding_window {})",
                max_sequence_tokens_, limit, config_.max_position_embeddings, config_.sliding_window);
  }
  const auto specs = model::transformer_layers(config_, options.tensor);
  const plan::Boundaries boundaries = cut(specs, options.num_stages);
  const auto index = static_cast<size_t>(options.stage);
  int64_t num_weights = 0;
  for (int i = boundaries[index]; i < boundaries[index + 1]; ++i) num_weights += specs[static_cast<size_t>(i)].num_parameters;
  num_weights /= options.tensor == nullptr ? 1 : options.tensor->size();
  if (auto too_large = check_weight_memory(least_weight_bytes(num_weights, options_.quantization, options.compute), available_on(options.device), options.device)) throw *too_large;
  stage_ = std::make_unique<pipeline::Stage>(specs, boundaries, options.stage);
  load_weights();
  if (leads()) followers_.emplace(*options.tensor, options.max_sequences);
  if (stage_->is_last() && (leads() || options.tensor == nullptr)) sampler_.emplace(options.max_sequences, options.tokenizer ? &*options.tokenizer : nullptr);
}

plan::TensorPart StageRunner::part() const {
  const model::TensorRanks* tensor = options_.tensor;
  return plan::tensor_part(config_.tensor_sizes(), tensor == nullptr ? 0 : tensor->rank(), tensor == nullptr ? 1 : tensor->size()).value();
}

// The decoder blocks among the stage's layers: layer 0 is the embedding, the last one the head.
model::KvCache::Shape StageRunner::cache_shape() const {
  const int first = std::max(stage_->first_layer(), 1), end = std::min(stage_->first_layer() + stage_->num_layers(), static_cast<int>(config_.num_layers) + 1);
  return {first - 1, std::max(0, end - first), part().kv_heads.size(), config_.head_size, options_.kv_cache_bf16};
}

void StageRunner::load_weights() {
  std::optional<model::StoredWeights> files;
  if (!options_.weights) files.emplace(options_.model, config_);
  const model::StoredBlocks blocks = [&](const model::StoredRows& rows) { return files ? files->block_type(rows) : std::nullopt; };
  int64_t loaded = 0, all = 0;
  for (const model::Parameter& p : stage_->parameters()) all += p.value.numel();
  for (model::Parameter& p : stage_->parameters()) {
    if (files) files->load(p);
    else options_.weights(p);
    if (on_gpu()) move_to_gpu(p);
    else model::hold(p, options_.quantization, options_.compute, blocks, quantized_);
    loaded += p.value.numel();
    if (options_.on_progress) options_.on_progress(static_cast<double>(loaded) / static_cast<double>(all));
  }
  if (files) files->require_all_used(stage_->parameters());
}

void StageRunner::move_to_gpu(model::Parameter& parameter) {
  try {
    model::move_to(options_.device, parameter, options_.compute);
  } catch (const c10::OutOfMemoryError&) {  // others use it, too
    throw too_little_weight_memory(parameter.value.numel() * (options_.compute == kernels::Compute::kBf16 ? 2 : 4), available_on(options_.device).value_or(0), options_.device);
  }
}

int StageRunner::affordable_pages() const {
  const int least = options_.max_sequence_tokens == 0 ? std::min(kLeastSequenceTokens, max_sequence_tokens_) : max_sequence_tokens_;
  const int sharers = options_.tensor == nullptr ? 1 : options_.tensor->size();
  const int ranks = options_.num_stages * sharers, places = on_gpu() ? tensor::num_gpus() : 1;
  const KvDemand demand{cache_shape().page_bytes(), options_.max_sequences, max_sequence_tokens_, least, (ranks + places - 1) / places,
                        on_gpu() ? " of " + options_.device.str() : ""};
  return plan_pages(demand, options_.kv_cache_bytes, available_on(options_.device)).value();
}

void StageRunner::make_cache(int num_pages) {
  if (const int64_t held = int64_t{num_pages} * kPageTokens; held < max_sequence_tokens_) {
    if (stage_->is_first()) {
      spdlog::warn("sequences may have {} tokens, not the {} of the model: the KV cache holds no more. More memory, handler.kv_cache_mb or more stages help", held, max_sequence_tokens_);
    }
    max_sequence_tokens_ = static_cast<int>(held);
  }
  num_pages_ = num_pages;
  try {
    cache_ = std::make_unique<model::KvCache>(cache_shape(), num_pages, options_.device);
  } catch (const c10::OutOfMemoryError&) {
    throw error(Code::kResourceExhausted, "the KV cache needs {} MiB on {}, and {} MiB are available there; set handler.kv_cache_mb or handler.max_concurrent lower",
                (num_pages * cache_shape().page_bytes()) >> 20, options_.device.str(), available_on(options_.device).value_or(0) >> 20);
  }
  slots_ = std::make_unique<SlotTable>(options_.max_sequences, num_pages);
  if (on_gpu()) step_rows_.emplace(kernels::AttentionShape{part().heads.size(), part().kv_heads.size(), config_.head_size}, options_.device);
}

int64_t StageRunner::weight_bytes() const {
  int64_t bytes = quantized_.bytes();
  for (const model::Parameter& p : stage_->parameters()) bytes += static_cast<int64_t>(p.value.storage().nbytes());
  return bytes;
}

at::Tensor StageRunner::forward(const StepPlan& plan, const at::Tensor& input) {
  at::NoGradGuard no_grad;
  PENSTOCK_CHECK(cache_, "a step before make_cache()");
  if (followers_) followers_->send_step(plan, input);
  slots_->apply(plan);
  std::optional<kernels::TeamScope> scope;
  if (!on_gpu()) scope.emplace(team_);
  std::vector<kernels::SequenceRows> rows;
  std::vector<int64_t> answered;
  int64_t end = 0;
  for (const SequenceStep& s : plan.sequences) {
    rows.push_back({slots_->pages(s.slot), s.start, s.count});
    for (size_t i = 0; i < s.targets.size(); ++i) answered.push_back(end + s.first_target + static_cast<int64_t>(i));
    end += s.count;
    if (s.samples) answered.push_back(end - 1);
  }
  model::ForwardContext context;
  context.linear.compute = options_.compute;
  context.linear.quantized = quantized_.empty() ? nullptr : &quantized_;
  context.sequences = rows;
  context.cache = cache_.get();
  if (step_rows_) {
    step_rows_->begin(rows, num_pages_);
    context.step_rows = &*step_rows_;
  }
  if (stage_->is_last()) context.output_rows = at::tensor(answered, at::kLong).to(options_.device, /*non_blocking=*/true);
  return stage_->forward({input.to(options_.device, /*non_blocking=*/true)}, context).at(0);
}

void StageRunner::tell(const StepPlan& plan) {
  if (followers_) followers_->send_plan(plan);
}

std::vector<SampledToken> StageRunner::sample(const StepPlan& plan, const at::Tensor& logits) {
  const kernels::TeamScope scope(team_);
  return sampler_->sample(plan, logits);
}

}  // namespace penstock::engine
