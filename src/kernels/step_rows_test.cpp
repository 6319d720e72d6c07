// Attention over pages by LibTorch operations, on the CPU and on a GPU, against the CPU's kernel.
#include "kernels/step_rows.h"

#include <gtest/gtest.h>

#include <numeric>

#include "base/error.h"
#include "tensor/device.h"

namespace penstock::kernels {
namespace {

struct Case {
  AttentionShape shape;
  at::ScalarType dtype;
  int64_t most_elements;
  const char* device;
  StepRows::By by = StepRows::By::kLibTorch;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.shape.heads << " heads, " << c.shape.kv_heads << " key heads of " << c.shape.head_size << ", " << c10::toString(c.dtype) << ", at most " << c.most_elements
       << " elements, on " << c.device << (c.by == StepRows::By::kOwnKernels ? " by our own kernels where there are" : "");
}

class CachedAttentionByTensors : public testing::TestWithParam<Case> {
 protected:
  static constexpr int64_t kPages = 64;
  static constexpr int kMostPositions = 400;

  void SetUp() override {
    if (GetParam().device == std::string("cuda") && tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }

  // Pages that nobody has written.
  struct Cache {
    Cache(const AttentionShape& shape, at::ScalarType dtype, const at::Device& device)
        : k(at::full({kPages, shape.kv_heads, shape.head_size, kPageTokens}, NAN, at::TensorOptions(device).dtype(dtype))),
          v(at::full({kPages, shape.kv_heads, kPageTokens, shape.head_size}, NAN, at::TensorOptions(device).dtype(dtype))) {}
    Tensor k, v;
  };
};

double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>() / b.abs().max().item<double>(); }

// Prompts and single tokens mixed, of several lengths; a sequence begins with pages of another one, one of which is filled in the same step.
TEST_P(CachedAttentionByTensors, GivesStepAfterStepWhatTheCpusKernelGives) {
  const Case& c = GetParam();
  const at::NoGradGuard no_grad;
  const at::Device device = tensor::find_device(c.device, 0).value();
  const RotaryTable rotary(kMostPositions, c.shape.head_size, 10000);
  std::vector<int32_t> own(40);
  std::iota(own.begin(), own.end(), 20);
  const std::vector<int32_t> first = {5, 3, 9, 11}, sharing = {5, 3, 7, 8}, small = {0}, other = {12, 2, 14};
  const std::vector<std::vector<SequenceRows>> steps = {
      {{first, 0, 30}, {small, 0, 1}, {own, 0, 331}},
      {{sharing, 32, 5}, {first, 30, 2}, {small, 1, 1}, {other, 0, 5}, {own, 331, 1}},  // `sharing` reads what `first` writes here
      {{sharing, 37, 1}, {first, 32, 1}, {own, 332, 1}, {other, 5, 1}, {small, 2, 1}},
      {{first, 33, 1}},
      {{small, 3, 8}, {other, 6, 8}, {own, 333, 40}},
  };
  Cache on_cpu(c.shape, c.dtype, at::kCPU), on_device(c.shape, c.dtype, device);
  StepRows rows(c.shape, device, c.most_elements, c.by);
  at::manual_seed(3);
  int number = 0;
  for (const auto& step : steps) {
    const int64_t count = std::accumulate(step.begin(), step.end(), int64_t{0}, [](int64_t sum, const SequenceRows& s) { return sum + s.count; });
    const Tensor qkv = at::randn({count, c.shape.row()});
    rows.begin(step, kPages);
    const Tensor got = cached_attention(qkv.to(device).contiguous(), c.shape, rotary, step, on_device.k, on_device.v, &rows).cpu();
    const Tensor expected = cached_attention(qkv.clone(), c.shape, rotary, step, on_cpu.k, on_cpu.v);
    EXPECT_LT(difference(got, expected), c.dtype == at::kFloat ? 1e-5 : 1e-2) << "step " << number;
    ++number;
  }
}

constexpr int64_t kUnbounded = StepRows::kMostElements;
INSTANTIATE_TEST_SUITE_P(Shapes, CachedAttentionByTensors,
                         testing::Values(Case{{4, 2, 8}, at::kFloat, kUnbounded, "cpu"}, Case{{4, 2, 8}, at::kFloat, 20000, "cpu"}, Case{{9, 3, 10}, at::kFloat, 1, "cpu"},
                                         Case{{3, 3, 6}, at::kBFloat16, kUnbounded, "cpu"}, Case{{8, 1, 64}, at::kBFloat16, 300000, "cpu"},
                                         Case{{4, 2, 8}, at::kFloat, kUnbounded, "cuda"}, Case{{9, 3, 10}, at::kFloat, 20000, "cuda"}, Case{{32, 4, 64}, at::kFloat, kUnbounded, "cuda"},
                                         Case{{32, 8, 128}, at::kBFloat16, kUnbounded, "cuda"},
                                         Case{{9, 3, 10}, at::kFloat, 20000, "cuda", StepRows::By::kOwnKernels},
                                         Case{{32, 8, 128}, at::kBFloat16, kUnbounded, "cuda", StepRows::By::kOwnKernels}),
                         [](const auto& info) { return std::string(info.param.device) + std::to_string(info.index); });

TEST(StepRows, PutsSequencesOfEqualCountAndLikeLengthTogetherWithinTheBound) {
  const AttentionShape shape{2, 1, 4};
  std::vector<int32_t> pages(200);
  std::iota(pages.begin(), pages.end(), 0);
  const std::vector<SequenceRows> step = {{pages, 100, 1}, {pages, 20, 1}, {pages, 3000, 1}, {pages, 0, 50}, {pages, 200, 1}};
  StepRows rows(shape, at::kCPU);
  rows.begin(step, 200);
  ASSERT_EQ(rows.groups().size(), 3u);
  EXPECT_EQ(rows.groups()[0].sequences, 3);
  EXPECT_EQ(rows.groups()[0].pages, 13);
  EXPECT_EQ(rows.groups()[1].pages, 188) << "the long one does not make the short ones long";
  EXPECT_EQ(rows.groups()[2].rows, 50);
  EXPECT_TRUE(rows.groups()[2].index.equal(at::arange(3, 53, at::kLong)));
  StepRows bounded(shape, at::kCPU, 2 * 4 * 16 * 10);  // ten rows of four pages
  bounded.begin(step, 200);
  EXPECT_EQ(bounded.groups().size(), 5u);
  EXPECT_EQ(bounded.groups().back().rows_at_once, 10);
}

TEST(StepRows, RefusesPagesThatAreNotThereOrTooFew) {
  StepRows rows({2, 1, 8}, at::kCPU);
  const std::vector<int32_t> beyond = {2}, few = {1};
  const SequenceRows bad[] = {{beyond, 0, 1}, {few, 16, 1}};
  for (const SequenceRows& part : bad) EXPECT_THROW(rows.begin(std::span(&part, 1), 2), Bug);
}

}  // namespace
}  // namespace penstock::kernels
