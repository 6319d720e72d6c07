// What a stage with floating-point weights computes: on the CPU bit by bit (but for AMX with bf16), on a GPU but for the order of sums.
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"
#include "engine/lone_steps.h"
#include "engine/stage_runner.h"
#include "kernels/amx.h"
#include "model/families.h"
#include "tensor/device.h"

namespace penstock::engine {
namespace {

using kernels::Compute;

constexpr int kSlots = 6, kTokens = 64, kPages = kTokens / kPageTokens;  // of a sequence
// Tables, gate and up have more than the 65,536 values that are rounded at least, the other matrices fewer.
constexpr const char* kConfig = R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 128, "intermediate_size": 300, "num_hidden_layers": 3, "num_attention_heads": 4,
  "num_key_value_heads": 2, "vocab_size": 600, "max_position_embeddings": 64, "initializer_range": 0.2, "tie_word_embeddings": false})";

class FloatStages : public testing::TestWithParam<const char*> {
 protected:
  FloatStages() { write_file_atomic(folder_.path() / "config.json", kConfig); }
  void SetUp() override {
    if (on_gpu() && tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }
  static bool on_gpu() { return GetParam() == std::string("cuda"); }
  // A GPU's library multiplies many rows in another way than few.
  static bool same(const at::Tensor& a, const at::Tensor& b, Compute compute = Compute::kFp32) {
    if (!on_gpu()) return a.equal(b);
    return (a - b).abs().max().item<double>() < (compute == Compute::kFp32 ? 1e-4 : 0.02) * b.abs().max().item<double>();
  }

  // A whole model of random weights, which are bfloat16 numbers where asked for.
  std::unique_ptr<StageRunner> stage(Compute compute, bool weights_are_bf16, bool kv_cache_bf16 = false, model::Quantization quantization = model::Quantization::kNone) {
    StageOptions options;
    options.model = folder_.path();
    options.max_sequences = kSlots;
    options.compute = compute;
    options.device = tensor::find_device(GetParam(), 0).value();
    options.kv_cache_bf16 = kv_cache_bf16;
    options.quantization = quantization;
    options.weights = [weights_are_bf16](model::Parameter& p) {
      const at::NoGradGuard no_grad;
      model::initialize(p, 7);
      if (weights_are_bf16) p.value.copy_(p.value.to(at::kBFloat16));
    };
    auto made = std::make_unique<StageRunner>(options);
    made->make_cache(kSlots * kPages);
    return made;
  }
  static at::Tensor prompt(int slot) { return at::arange(5 + slot, at::kLong) * 31 + slot; }
  static at::Tensor feed(StageRunner& stage, int slot, int start, const at::Tensor& ids) {
    return stage.forward({StepKind::kCompute, {lone_step(slot, start, static_cast<int>(ids.numel()), true, kSlots, kPages)}}, ids).cpu();
  }
  // The logits [tokens, V] of a prompt's last token and of those that greedy choice lets follow.
  static at::Tensor greedy(StageRunner& stage, int tokens) {
    std::vector<at::Tensor> logits{feed(stage, 0, 0, prompt(0))};
    for (int i = 1; i < tokens; ++i) logits.push_back(feed(stage, 0, static_cast<int>(prompt(0).numel()) + i - 1, logits.back().argmax(-1)));
    return at::cat(logits);
  }

 private:
  TempDir folder_;
};

TEST_P(FloatStages, Bfloat16GivesWhatFloat32DoesWhereTheWeightsAreBfloat16Numbers) {
  const auto fp32 = stage(Compute::kFp32, true), bf16 = stage(Compute::kBf16, true);
  EXPECT_LT(static_cast<double>(bf16->weight_bytes()), 0.75 * static_cast<double>(fp32->weight_bytes())) << "it holds them in bfloat16";
  if (on_gpu()) {
    EXPECT_TRUE(same(greedy(*fp32, 1), greedy(*bf16, 1), Compute::kBf16)) << "it rounds activations, too";
  } else {
    const at::Tensor exact = greedy(*fp32, 40), found = greedy(*bf16, 40);
    EXPECT_TRUE(exact.argmax(-1).equal(found.argmax(-1)));
    if (kernels::has_amx()) EXPECT_LT((exact - found).abs().max().item<double>(), 2e-4 * exact.abs().max().item<double>()) << "of activations it takes 16 bits";
    else EXPECT_TRUE(exact.equal(found));
  }
}

TEST_P(FloatStages, Bfloat16RoundsOtherWeights) {
  const at::Tensor exact = greedy(*stage(Compute::kFp32, false), 1), rounded = greedy(*stage(Compute::kBf16, false), 1);
  EXPECT_FALSE(exact.equal(rounded));
  EXPECT_LT((exact - rounded).abs().max().item<double>(), 0.05 * exact.abs().max().item<double>());
}

TEST_P(FloatStages, KeysAndValuesInBfloat16ComeClose) {
  const auto fp32 = stage(Compute::kFp32, false), bf16 = stage(Compute::kFp32, false, true);
  const at::Tensor exact = greedy(*fp32, 1), rounded = greedy(*bf16, 1);
  EXPECT_FALSE(exact.equal(rounded));
  EXPECT_LT((exact - rounded).abs().max().item<double>(), 0.05 * exact.abs().max().item<double>());
}

TEST_P(FloatStages, APromptGivesTheSameBitsHoweverItIsCut) {
  const auto fp32 = stage(Compute::kFp32, false);
  const at::Tensor ids = at::arange(50, at::kLong) * 11, whole = feed(*fp32, 0, 0, ids);
  for (const int piece : {1, 7, 16, 33}) {
    at::Tensor last;
    for (int start = 0; start < 50; start += piece) last = feed(*fp32, 0, start, ids.narrow(0, start, std::min(piece, 50 - start)));
    EXPECT_TRUE(same(last, whole)) << "pieces of " << piece;
  }
}

TEST_P(FloatStages, ATokenDependsOnItsSequenceAlone) {
  for (const Compute compute : {Compute::kFp32, Compute::kBf16}) {
    const auto crowd = stage(compute, false), alone = stage(compute, false);
    StepPlan step{StepKind::kCompute, {}};
    std::vector<at::Tensor> expected;
    for (int slot = 0; slot < kSlots; ++slot) {
      const int length = static_cast<int>(prompt(slot).numel());
      const at::Tensor next = at::full({1}, 100 + slot, at::kLong);
      (void)feed(*crowd, slot, 0, prompt(slot));
      (void)feed(*alone, slot, 0, prompt(slot));
      expected.push_back(feed(*alone, slot, length, next));
      step.sequences.push_back(lone_step(slot, length, 1, true, kSlots, kPages));
    }
    EXPECT_TRUE(same(crowd->forward(step, at::arange(100, 100 + kSlots, at::kLong)).cpu(), at::cat(expected), compute));
  }
}

TEST_P(FloatStages, QuantizedWeightsAreTheCpusOnly) {
  for (const auto quantization : {model::Quantization::kInt8, model::Quantization::kInt4}) {
    try {
      const auto made = stage(Compute::kFp32, false, false, quantization);
      EXPECT_FALSE(on_gpu());
    } catch (const Error& e) {
      EXPECT_TRUE(on_gpu()) << e.message();
      EXPECT_EQ(e.code(), Code::kUnimplemented);
      EXPECT_NE(e.message().find("'handler.quantization: none', or 'handler.device: cpu'"), std::string::npos) << e.message();
    }
  }
}

INSTANTIATE_TEST_SUITE_P(On, FloatStages, testing::Values("cpu", "cuda"), [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace penstock::engine
