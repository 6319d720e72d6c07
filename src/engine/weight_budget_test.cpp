#include "engine/weight_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/file.h"
#include "base/temp_dir.h"
#include "engine/stage_runner.h"
#include "tensor/device.h"

namespace penstock::engine {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr int64_t kMiB = 1 << 20;

TEST(WeightBudget, CountsTheFormInWhichWeightsAreHeld) {
  using model::Quantization;
  EXPECT_EQ(least_weight_bytes(kMiB, Quantization::kNone, kernels::Compute::kFp32), 4 * kMiB);
  EXPECT_EQ(least_weight_bytes(kMiB, Quantization::kNone, kernels::Compute::kBf16), 2 * kMiB);
  EXPECT_EQ(least_weight_bytes(kMiB, Quantization::kInt8, kernels::Compute::kFp32), kMiB / 32 * 34);
  EXPECT_EQ(least_weight_bytes(kMiB, Quantization::kInt4, kernels::Compute::kFp32), kMiB / 32 * 20);
  EXPECT_EQ(least_weight_bytes(kMiB, Quantization::kAsStored, kernels::Compute::kFp32), kMiB / 32 * 18);
}

TEST(WeightBudget, SaysWhatIsNeededAndWhatThereIs) {
  EXPECT_FALSE(check_weight_memory(10 * kMiB, 10 * kMiB, at::kCPU));
  EXPECT_FALSE(check_weight_memory(10 * kMiB, std::nullopt, at::kCPU));
  const auto refused = check_weight_memory(10 * kMiB, 9 * kMiB, at::kCPU);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code(), Code::kResourceExhausted);
  EXPECT_THAT(refused->message(), HasSubstr("need 10 MiB of memory, and 9 MiB are available"));
  const auto on_gpu = check_weight_memory(10 * kMiB, 9 * kMiB, at::Device(at::kCUDA, 1));
  ASSERT_TRUE(on_gpu);
  EXPECT_THAT(on_gpu->message(), HasSubstr("need 10 MiB of the memory of cuda:1, and 9 MiB are available there"));
  EXPECT_THAT(on_gpu->message(), Not(HasSubstr("quantization"))) << "a GPU takes none";
}

class NoMachine : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (GetParam() == std::string("cuda") && tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }
};

TEST_P(NoMachine, HoldsThisModelWhichIsRefusedBeforeItsFilesAreOpened) {
  TempDir folder;
  write_file_atomic(folder.path() / "config.json", R"({"architectures": ["LlamaForCausalLM"], "vocab_size": 32000, "hidden_size": 65536, "num_hidden_layers": 200,
    "num_attention_heads": 64, "intermediate_size": 262144, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": false})");
  StageOptions options{folder.path(), 0, 2, 1, 0, kernels::Compute::kFp32, tensor::find_device(GetParam(), 0).value()};
  try {
    StageRunner runner(options);
    FAIL() << "50 TiB of weights were loaded";
  } catch (const Error& refused) {
    EXPECT_EQ(refused.code(), Code::kResourceExhausted);
    EXPECT_THAT(refused.message(), HasSubstr("the weights of this rank need"));
    EXPECT_THAT(refused.message(), HasSubstr(options.device.is_cpu() ? "MiB of memory" : "MiB of the memory of cuda:0"));
  }
}

INSTANTIATE_TEST_SUITE_P(On, NoMachine, testing::Values("cpu", "cuda"), [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace penstock::engine
