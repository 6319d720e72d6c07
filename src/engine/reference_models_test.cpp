// Serving's forward pass, with its KV cache and in stages, against logits of other implementations; needs ../shared/data.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "comm/spawn_ranks.h"
#include "engine/lone_steps.h"
#include "engine/stage_runner.h"
#include "tensor/device.h"
#include "weights/hf_directory.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

// The stages of a model, of which one thread has one tensor rank each. Ranks of one number form the model's column; each passes on what it has.
class Pipeline {
 public:
  Pipeline(const std::filesystem::path& model, int stages, const model::TensorRanks* tensor, const at::Device& device, kernels::Compute compute = kernels::Compute::kFp32, bool kv_cache_bf16 = false) {
    for (int i = 0; i < stages; ++i) {
      StageOptions options{model, i, stages, kSlots, kTokens, compute, device};
      options.tensor = tensor;
      options.kv_cache_bf16 = kv_cache_bf16;
      stages_.push_back(std::make_unique<StageRunner>(options));
      stages_.back()->make_cache(kSlots * kPages);
      if (tensor != nullptr && tensor->rank() > 0) leaders_.push_back(std::make_unique<TensorLink>(*tensor, kSlots));
    }
  }
  // The logits [V] of the last of the tokens that sequence `slot` goes on with.
  at::Tensor feed(int slot, int start, const std::vector<int64_t>& tokens) {
    const StepPlan plan{StepKind::kCompute, {lone_step(slot, start, static_cast<int>(tokens.size()), true, kSlots, kPages)}};
    at::Tensor x = at::tensor(tokens, at::kLong);
    for (size_t i = 0; i < stages_.size(); ++i) {
      if (!leaders_.empty()) {  // what the leader tells is what this rank knows
        EXPECT_EQ(encode(leaders_[i]->recv_plan(Deadline::after(seconds(20)))), encode(plan));
        const at::Tensor told = i == 0 ? leaders_[i]->recv_ids(plan.rows()) : leaders_[i]->recv_hidden(plan.rows(), stages_[i]->config().hidden_size);
        EXPECT_TRUE(told.equal(x.cpu())) << "ranks do not have the same bits";
      }
      x = stages_[i]->forward(plan, x);
    }
    return x[0].cpu();
  }

 private:
  static constexpr int kSlots = 4, kTokens = 128, kPages = kTokens / kPageTokens;  // of a sequence
  std::vector<std::unique_ptr<StageRunner>> stages_;
  std::vector<std::unique_ptr<TensorLink>> leaders_;  // of a rank that follows
};

struct Layout {
  int stages = 1;
  int tensor = 1;
  const char* device = "cpu";
};

class ReferenceModel : public testing::TestWithParam<std::tuple<const char*, Layout>> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder())) GTEST_SKIP() << "no " << folder();
    if (layout().device == std::string("cuda") && tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }
  static const Layout& layout() { return std::get<1>(GetParam()); }
  static at::Device device() { return tensor::find_device(layout().device, 0).value(); }
  static std::filesystem::path folder() { return std::filesystem::path(PENSTOCK_SOURCE_DIR) / "../shared/data/models" / std::get<0>(GetParam()); }
  static json reference() {
    const auto beside = std::filesystem::exists(folder() / "reference.json") ? folder() : folder().parent_path();
    return json::parse(read_file(beside / "reference.json", 64 << 20).value());
  }
};

void expect_near(const at::Tensor& logits, const json& expected) {
  const at::Tensor values = at::tensor(expected.get<std::vector<double>>(), at::kDouble);
  EXPECT_LE((logits.to(at::kDouble) - values).abs().max().item<double>(), 1e-4);
}

void expect_reference(Pipeline& pipeline, const json& reference) {
  int slot = 0;
  for (const json& expected : reference) {
    const auto ids = expected["ids"].get<std::vector<int64_t>>();
    if (expected.contains("logits_all")) {
      for (size_t i = 0; i < ids.size(); ++i) expect_near(pipeline.feed(slot, static_cast<int>(i), {ids[i]}), expected["logits_all"][i]);
    }
    // In one piece, into the same slot once more.
    at::Tensor logits = pipeline.feed(slot, 0, ids);
    expect_near(logits, expected.contains("logits_all") ? expected["logits_all"].back() : expected["logits"]);
    const json& continuation = expected.contains("greedy_30") ? expected["greedy_30"] : expected["greedy_100"];
    std::vector<int64_t> made;
    while (made.size() < continuation.size()) {
      made.push_back(logits.argmax().item<int64_t>());
      logits = pipeline.feed(slot, static_cast<int>(ids.size() + made.size()) - 1, {made.back()});
    }
    EXPECT_EQ(made, continuation.get<std::vector<int64_t>>());
    ++slot;
  }
}

TEST_P(ReferenceModel, GivesItsLogitsAndGreedyTokensWithACache) {
  const json expected = reference();
  comm::spawn_ranks(layout().tensor, [&](comm::Communicator& group) {
    const model::TensorRanks ranks(group, seconds(20));
    Pipeline pipeline(folder(), layout().stages, layout().tensor > 1 ? &ranks : nullptr, device());
    expect_reference(pipeline, expected);
  });
}

// Their matrices have fewer values than rounding saves anything of (model/held_weights.h): not even their logits differ.
class ReferenceModelInBfloat16 : public ReferenceModel {};

TEST_P(ReferenceModelInBfloat16, GivesTheLogitsAndGreedyTokensOfFloat32) {
  Pipeline pipeline(folder(), layout().stages, nullptr, device(), kernels::Compute::kBf16);
  expect_reference(pipeline, reference());
}

// There operands of every product are rounded, however small.
class ReferenceModelInBfloat16OnAGpu : public ReferenceModel {};

TEST_P(ReferenceModelInBfloat16OnAGpu, ComesCloseToTheLogitsOfFloat32) {
  for (const bool kv_cache_bf16 : {false, true}) {
    Pipeline pipeline(folder(), layout().stages, nullptr, device(), kernels::Compute::kBf16, kv_cache_bf16);
    int slot = 0;
    for (const json& sequence : reference()) {
      const json& logits = sequence.contains("logits_all") ? sequence["logits_all"].back() : sequence["logits"];
      const at::Tensor expected = at::tensor(logits.get<std::vector<double>>(), at::kDouble);
      const at::Tensor got = pipeline.feed(slot++, 0, sequence["ids"].get<std::vector<int64_t>>()).to(at::kDouble);
      EXPECT_LE((got - expected).abs().max().item<double>(), 0.05 * expected.abs().max().item<double>()) << "sequence " << slot;
    }
  }
}

constexpr const char* kModels[] = {"stories260K/hf", "tiny_gpt2", "tiny_mistral", "tiny_mistral/sharded_bf16", "tiny_qwen2", "tiny_qwen3", "stories260K/stories260K.gguf",
                                   "tiny_gpt2/tiny_gpt2.gguf", "tiny_mistral/tiny_mistral.gguf", "tiny_qwen2/tiny_qwen2.gguf", "tiny_qwen3/tiny_qwen3.gguf"};

std::string name_of(const testing::TestParamInfo<std::tuple<const char*, Layout>>& info) {
  const auto& [model, layout] = info.param;
  std::string name = std::string(model) + "_in_" + std::to_string(layout.stages) + "x" + std::to_string(layout.tensor);
  if (layout.device != std::string("cpu")) name += std::string("_on_") + layout.device;
  std::ranges::replace_if(name, [](char c) { return c == '/' || c == '.'; }, '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(All, ReferenceModel,
                         testing::Combine(testing::ValuesIn(kModels), testing::Values(Layout{1, 1}, Layout{2, 1}, Layout{3, 1}, Layout{5, 1}, Layout{1, 2}, Layout{1, 4},
                                                                                      Layout{2, 2}, Layout{3, 4}, Layout{1, 1, "cuda"}, Layout{2, 1, "cuda"}, Layout{1, 2, "cuda"}, Layout{2, 2, "cuda"})),
                         name_of);
INSTANTIATE_TEST_SUITE_P(All, ReferenceModelInBfloat16, testing::Combine(testing::ValuesIn(kModels), testing::Values(Layout{1, 1}, Layout{2, 1})), name_of);
INSTANTIATE_TEST_SUITE_P(All, ReferenceModelInBfloat16OnAGpu, testing::Combine(testing::ValuesIn(kModels), testing::Values(Layout{1, 1, "cuda"}, Layout{2, 1, "cuda"})), name_of);

}  // namespace
}  // namespace penstock::engine
