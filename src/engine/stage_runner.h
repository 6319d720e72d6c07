#pragma once
// One stage of a served model: its layers, its KV cache, and what a step does to them.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "engine/step_plan.h"
#include "model/kv_cache.h"
#include "model/transformer_config.h"
#include "pipeline/stage.h"

namespace penstock::engine {

struct StageOptions {
  std::filesystem::path model;     // a Hugging Face directory
  int stage = 0;
  int num_stages = 1;
  int max_sequences = 8;           // KV slots
  int max_sequence_tokens = 0;     // 0 = the model's max_position_embeddings
  kernels::Compute compute = kernels::Compute::kFp32;
};

// Threads: owned by one thread.
class StageRunner {
 public:
  // Builds the stage's layers and reads their weights, and no others, from the mapped files. Stages are cut by parameters.
  // Throws Error naming the file and key or tensor.
  explicit StageRunner(const StageOptions& options);

  // Rows of the plan through the layers. First stage: `input` is token ids [N] int64; others: hidden [N, D]. -> hidden [N, D], or on the
  // last stage logits [S, V] of the S rows that are sampled (S may be 0).
  [[nodiscard]] at::Tensor forward(const StepPlan& plan, const at::Tensor& input);

  [[nodiscard]] const model::TransformerConfig& config() const { return config_; }
  [[nodiscard]] int max_sequence_tokens() const { return max_sequence_tokens_; }
  [[nodiscard]] const pipeline::Stage& stage() const { return *stage_; }

 private:
  const StageOptions options_;
  model::TransformerConfig config_;
  int max_sequence_tokens_ = 0;
  std::unique_ptr<pipeline::Stage> stage_;
  std::unique_ptr<model::KvCache> cache_;
};

// Samples each row of logits [S, V] by its sequence's choice.
[[nodiscard]] std::vector<int32_t> sample_rows(const StepPlan& plan, const at::Tensor& logits);

}  // namespace penstock::engine
