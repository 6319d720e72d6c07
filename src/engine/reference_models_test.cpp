// Serving's forward pass, with its KV cache and in stages, against logits of other implementations; needs ../shared/data.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "engine/lone_steps.h"
#include "engine/stage_runner.h"
#include "weights/hf_directory.h"

namespace penstock::engine {
namespace {

using nlohmann::json;

// All stages of a model in one thread.
class Pipeline {
 public:
  Pipeline(const std::filesystem::path& model, int stages) {
    for (int i = 0; i < stages; ++i) {
      stages_.push_back(std::make_unique<StageRunner>(StageOptions{model, i, stages, kSlots, kTokens, kernels::Compute::kFp32}));
      stages_.back()->make_cache(kSlots * kPages);
    }
  }
  // The logits [V] of the last of the tokens that sequence `slot` goes on with.
  at::Tensor feed(int slot, int start, const std::vector<int64_t>& tokens) {
    const StepPlan plan{StepKind::kCompute, {lone_step(slot, start, static_cast<int>(tokens.size()), true, kSlots, kPages)}};
    at::Tensor x = at::tensor(tokens, at::kLong);
    for (auto& stage : stages_) x = stage->forward(plan, x);
    return x[0];
  }

 private:
  static constexpr int kSlots = 4, kTokens = 128, kPages = kTokens / kPageTokens;  // of a sequence
  std::vector<std::unique_ptr<StageRunner>> stages_;
};

class ReferenceModel : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(folder())) GTEST_SKIP() << "no " << folder();
  }
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

TEST_P(ReferenceModel, GivesItsLogitsAndGreedyTokensWithACache) {
  Pipeline pipeline(folder(), std::get<1>(GetParam()));
  int slot = 0;
  for (const json& expected : reference()) {
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

INSTANTIATE_TEST_SUITE_P(All, ReferenceModel,
                         testing::Combine(testing::Values("stories260K/hf", "tiny_gpt2", "tiny_mistral", "tiny_mistral/sharded_bf16", "tiny_qwen2", "tiny_qwen3",
                                         "stories260K/stories260K.gguf", "tiny_gpt2/tiny_gpt2.gguf", "tiny_mistral/tiny_mistral.gguf", "tiny_qwen2/tiny_qwen2.gguf",
                                         "tiny_qwen3/tiny_qwen3.gguf"), testing::Values(1, 2)),
                         [](const auto& info) {
                           std::string name = std::string(std::get<0>(info.param)) + "_in_" + std::to_string(std::get<1>(info.param));
                           std::ranges::replace_if(name, [](char c) { return c == '/' || c == '.'; }, '_');
                           return name;
                         });

}  // namespace
}  // namespace penstock::engine
