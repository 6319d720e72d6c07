// The Llama family's layers in a loop of your own: a small language model with a tied head on 2 ranks, trained by the zero-bubble V schedule.
// `penstock train` does all of this from a configuration file, with checkpoints, metrics and validation.
#include <ATen/ATen.h>

#include <cstdio>
#include <string>

#include "comm/run_job.h"
#include "kernels/cross_entropy.h"
#include "model/families.h"
#include "train/pipeline_trainer.h"

using namespace penstock;
using model::Tensors;

constexpr int64_t kLength = 64;

model::TransformerConfig small_llama() {
  model::TransformerConfig config;
  config.vocab_size = 256;  // bytes
  config.hidden_size = 64;
  config.num_layers = 4;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_size = 16;
  config.intermediate_size = 176;
  config.max_position_embeddings = kLength;
  config.initializer_range = 0.125;
  config.tie_word_embeddings = true;  // embedding and head are one weight: here both are on rank 0, the first and the last stage
  return config;
}

// 16 pieces of a text with a pattern to learn: ids [16, 65].
at::Tensor batch(int step) {
  std::string text;
  for (int i = 0; text.size() < 16 * (kLength + 1); ++i) text += "line " + std::to_string(step * 7 + i) + ": the water falls, the wheel turns; ";
  return at::from_blob(text.data(), {16, kLength + 1}, at::kByte).to(at::kLong).clone();
}

at::Tensor loss(const Tensors& logits, const Tensors& targets) { return kernels::cross_entropy_sum(logits[0], targets[0]); }

int main() {
  train::TrainerOptions options;
  options.mesh = {.pipe = 2};
  options.schedule = "zb-v";
  options.microbatches = 8;
  try {
    comm::run_job(options.mesh.size(), [&](comm::Communicator& world) {
      train::PipelineTrainer trainer(world, model::transformer_layers(small_llama()), options);
      for (int step = 0; step <= 60; ++step) {
        const at::Tensor ids = batch(step);
        const auto outcome = trainer.train_batch({ids.narrow(1, 0, kLength)}, {ids.narrow(1, 1, kLength).contiguous()}, loss, 5e-3);
        if (step % 20 == 0 && world.rank() == 0) std::printf("step %2d  %.3f nats per byte, gradient norm %.2f\n", step, outcome.loss, outcome.gradient_norm);
      }
    });
  } catch (const std::exception& failed) {
    std::fprintf(stderr, "example_language_model: %s\n", failed.what());
    return 1;
  }
}
