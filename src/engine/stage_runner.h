#pragma once
// One stage of a served model: its layers, its KV cache, and what a step does to them.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/slot_table.h"
#include "engine/step_plan.h"
#include "engine/step_sampler.h"
#include "engine/tensor_link.h"
#include "kernels/step_rows.h"
#include "kernels/thread_team.h"
#include "model/held_weights.h"
#include "model/kv_cache.h"
#include "model/tensor_ranks.h"
#include "model/transformer_config.h"
#include "pipeline/stage.h"
#include "plan/tensor_part.h"

namespace penstock::engine {

struct StageOptions {
  std::filesystem::path model;     // a Hugging Face directory, a GGUF file or a folder with one
  int stage = 0;
  int num_stages = 1;
  int max_sequences = 8;           // that run at once
  int max_sequence_tokens = 0;     // 0 = the model's max_position_embeddings, or as many as the KV cache holds, at least 2048
  kernels::Compute compute = kernels::Compute::kFp32;
  at::Device device = at::kCPU;    // that has weights, KV cache and activations; a GPU takes no quantized weights (kAsStored: floats)
  int64_t kv_cache_bytes = 0;      // of this stage; 0 = as plan_pages() finds
  bool kv_cache_bf16 = false;      // keys and values are kept in bfloat16; else float32
  std::function<void(double share)> on_progress = {};  // told of the share of the stage's weights that is loaded
  model::Quantization quantization = model::Quantization::kNone;
  std::optional<text::Tokenizer> tokenizer = {};  // the last stage's; without it no text can be constrained
  // Fills a parameter in place of the files, of which then only config.json is read; for measurements.
  std::function<void(model::Parameter&)> weights = {};
  // The ranks that share this stage's layers, which outlive it; null: none. Number 0 leads: it talks to other stages and samples, the others follow (follow_stage()).
  const model::TensorRanks* tensor = nullptr;
};

// Threads: owned by one thread. Its loops on the CPU run on a team of as many threads as LibTorch had when it was made.
class StageRunner {
 public:
  // Builds the stage's layers and reads their weights, and no others, from the mapped files; of shared layers this rank's part. Stages are cut by parameters.
  // Throws Error naming the file and key or tensor; kUnimplemented where a GPU is to hold quantized weights.
  explicit StageRunner(const StageOptions& options);

  // Pages of the KV cache that this stage has memory for, as plan_pages() says. Throws Error kResourceExhausted when not one sequence fits.
  [[nodiscard]] int affordable_pages() const;
  // REQUIRES: the same number on all ranks, once, before forward(). With options.max_sequence_tokens 0 it may lower max_sequence_tokens() to what they hold.
  void make_cache(int num_pages);

  // Rows of the plan through the layers. First stage: `input` is token ids [N] int64; others: hidden [N, D]; on any device. -> on this stage's device hidden [N, D], or on the
  // last stage logits [S, V] of the S rows that are targets or sampled (S may be 0), sequence after sequence. A leader tells the ranks that follow it; all of
  // them end with the same.
  [[nodiscard]] at::Tensor forward(const StepPlan& plan, const at::Tensor& input);

  // Last stage, its leader: what step_sampler.h says of the step that forward() computed, on this stage's threads.
  [[nodiscard]] std::vector<SampledToken> sample(const StepPlan& plan, const at::Tensor& logits);
  // The same without them, for a thread of its own, which then is the only one to sample (sampling_thread.h).
  [[nodiscard]] StepSampler& sampler() { return *sampler_; }

  // Leader: passes a kIdle or kStop plan on to the ranks that follow it, where there are any.
  void tell(const StepPlan& plan);

  [[nodiscard]] const model::TensorRanks* tensor() const { return options_.tensor; }
  [[nodiscard]] const model::TransformerConfig& config() const { return config_; }
  [[nodiscard]] int max_sequence_tokens() const { return max_sequence_tokens_; }
  [[nodiscard]] bool on_gpu() const { return !options_.device.is_cpu(); }
  [[nodiscard]] const pipeline::Stage& stage() const { return *stage_; }
  // Of the stage's weights, in the form in which they are held.
  [[nodiscard]] int64_t weight_bytes() const;

 private:
  void load_weights();
  void move_to_gpu(model::Parameter& parameter);
  [[nodiscard]] plan::TensorPart part() const;  // of every layer, that this rank has
  [[nodiscard]] model::KvCache::Shape cache_shape() const;
  [[nodiscard]] bool leads() const { return options_.tensor != nullptr && options_.tensor->rank() == 0; }

  const StageOptions options_;
  model::TransformerConfig config_;
  int max_sequence_tokens_ = 0;
  int num_pages_ = 0;
  std::unique_ptr<pipeline::Stage> stage_;
  kernels::QuantizedWeights quantized_;
  kernels::ThreadTeam team_;
  std::unique_ptr<model::KvCache> cache_;
  std::unique_ptr<SlotTable> slots_;
  std::optional<kernels::StepRows> step_rows_;  // on a GPU
  std::optional<TensorLink> followers_;  // of a leader
  std::optional<StepSampler> sampler_;  // of the last stage's leader
};

}  // namespace penstock::engine
