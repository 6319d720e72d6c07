#pragma once
// A small random model, and engines over it. For the tests of this folder.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/temp_dir.h"
#include "comm/spawn_ranks.h"
#include "engine/pipeline_engine.h"
#include "engine/rank_groups.h"
#include "engine/stage_loop.h"
#include "model/families.h"
#include "model/parameter_io.h"
#include "tensor/device.h"
#include "weights/hf_directory.h"
#include "weights/hf_writer.h"

namespace penstock::engine {

// Collects a generation's events and lets a test wait for its end.
class Collector : public EventSink {
 public:
  bool push(GenerationEvent event) override {
    MutexLock lock(mutex_);
    text_ += event.text;
    if (event.token_id >= 0) ids_.push_back(event.token_id);
    if (!event.logprobs.empty()) logprobs_.push_back(event.logprobs);
    prompt_logprobs_.insert(prompt_logprobs_.end(), event.prompt_logprobs.begin(), event.prompt_logprobs.end());
    ++events_;
    if (event.finished) last_ = event;
    changed_.notify_all();
    return true;
  }
  GenerationEvent wait() {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(60));
    while (!last_) {
      if (!changed_.wait(mutex_, deadline)) throw std::runtime_error("no end within a minute");
    }
    return *last_;
  }
  void wait_events(int count) {
    MutexLock lock(mutex_);
    const Deadline deadline = Deadline::after(seconds(60));
    while (events_ < count && !last_) {
      if (!changed_.wait(mutex_, deadline)) throw std::runtime_error("no events within a minute");
    }
  }
  std::vector<int32_t> ids() {
    MutexLock lock(mutex_);
    return ids_;
  }
  std::string text() {
    MutexLock lock(mutex_);
    return text_;
  }

  std::vector<std::vector<text::TokenLogprob>> logprobs() {
    MutexLock lock(mutex_);
    return logprobs_;
  }
  std::vector<std::vector<text::TokenLogprob>> prompt_logprobs() {
    MutexLock lock(mutex_);
    return prompt_logprobs_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::string text_;
  std::vector<int32_t> ids_;
  std::vector<std::vector<text::TokenLogprob>> logprobs_, prompt_logprobs_;
  int events_ = 0;
  std::optional<GenerationEvent> last_;
};

// A random model of real structure in a Hugging Face directory.
class EngineTest : public testing::Test {
 protected:
  static constexpr int kLength = 96;

  EngineTest() {
    config_.vocab_size = 257;
    config_.hidden_size = 32;
    config_.num_layers = 4;
    config_.num_heads = 4;
    config_.num_kv_heads = 2;
    config_.head_size = 8;
    config_.intermediate_size = 48;
    config_.max_position_embeddings = kLength;
    config_.initializer_range = 0.3;  // lively logits: greedy choices without near ties
    config_.eos_token_id = 256;
    const auto specs = model::transformer_layers(config_);
    whole_ = std::make_unique<pipeline::Stage>(specs, std::vector<int>{0, static_cast<int>(specs.size())}, 0);
    std::vector<weights::NamedTensor> tensors;
    for (auto& p : whole_->parameters()) {
      model::initialize(p, 11);
      for (auto& part : model::stored_parts(p, p.value)) tensors.push_back(part);
    }
    weights::write_hf_weights(dir_.path(), tensors, 1 << 30);
    write_file_atomic(dir_.path() / "config.json", model::to_config_json(config_));
    text::write_tokenizer_files(dir_.path());
  }

  // Greedy, the whole sequence computed anew for every token.
  std::vector<int32_t> plain_greedy(const std::string& prompt, int count) {
    at::NoGradGuard no_grad;
    std::vector<int64_t> ids;
    for (const auto id : text::byte_tokenizer().encode(prompt)) ids.push_back(id);
    std::vector<int32_t> out;
    for (int i = 0; i < count; ++i) {
      const at::Tensor logits = whole_->forward({at::tensor(ids, at::kLong).unsqueeze(0)}, {}).at(0)[0][static_cast<int64_t>(ids.size()) - 1];
      out.push_back(static_cast<int32_t>(logits.argmax().item<int64_t>()));
      ids.push_back(out.back());
      if (out.back() == 256) break;
    }
    return out;
  }

  // Runs `use` against an engine of this many stages as threads. `kv_cache_bytes`: of each stage.
  void with_engine(int stages, const std::function<void(PipelineEngine&)>& use, PipelineEngineOptions options = {}, int64_t kv_cache_bytes = 0) {
    comm::spawn_ranks(stages, [&](comm::Communicator& ranks) {
      StageOptions stage{dir_.path(), ranks.rank(), stages, options.max_sequences, 0, kernels::Compute::kFp32};
      stage.kv_cache_bytes = kv_cache_bytes;
      stage.device = device_;
      if (ranks.rank() == stages - 1) stage.tokenizer = text::byte_tokenizer();
      StageRunner runner(stage);
      if (ranks.rank() > 0) return run_stage(runner, ranks, options.max_sequences, seconds(20));
      PipelineEngine engine(runner, ranks, text::byte_tokenizer(), options);
      use(engine);
    });
  }

  // The same with `tensor` ranks that share the layers of each stage.
  void with_tensor_ranks(int stages, int tensor, const std::function<void(PipelineEngine&)>& use, PipelineEngineOptions options = {}) {
    comm::spawn_ranks(stages * tensor, [&](comm::Communicator& world) {
      RankGroups groups = make_rank_groups(world, tensor, Deadline::after(seconds(20)));
      const model::TensorRanks ranks(*groups.tensor, seconds(20));
      StageOptions stage{dir_.path(), groups.mesh.coordinates(world.rank()).pipe, stages, options.max_sequences, 0, kernels::Compute::kFp32};
      stage.tensor = &ranks;
      stage.device = device_;
      if (stage.stage == stages - 1) stage.tokenizer = text::byte_tokenizer();
      StageRunner runner(stage);
      if (!groups.leads()) return follow_stage(runner, options.max_sequences, seconds(20));
      if (world.rank() > 0) return run_stage(runner, *groups.stages, options.max_sequences, seconds(20));
      PipelineEngine engine(runner, *groups.stages, text::byte_tokenizer(), options);
      use(engine);
    });
  }

  static text::GenerationRequest greedy(const std::string& prompt, int max_tokens) {
    text::GenerationRequest request;
    request.prompt = prompt;
    request.sampling.temperature = 0;
    request.sampling.max_tokens = max_tokens;
    return request;
  }

  TempDir dir_;
  model::TransformerConfig config_;
  std::unique_ptr<pipeline::Stage> whole_;
  at::Device device_ = at::kCPU;  // of the engines' stages
};

// Tests that run on the CPU and on a GPU.
class EngineOnDevice : public EngineTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    if (GetParam() == std::string("cuda") && tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
    device_ = tensor::find_device(GetParam(), 0).value();
  }
};

inline std::string name_of_device(const testing::TestParamInfo<const char*>& info) { return info.param; }

}  // namespace penstock::engine
