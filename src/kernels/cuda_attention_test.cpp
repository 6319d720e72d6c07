// Attention over pages by our own CUDA kernels, against the CPU's kernel; and how a step is cut for them.
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/attention.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/paged_attention.h"
#include "kernels/parallel.h"
#include "tensor/device.h"

namespace penstock::kernels {
namespace {

TEST(StepTiles, HaveAllRowsInOrderAndTheirPages) {
  std::vector<int32_t> pages(40);
  std::iota(pages.begin(), pages.end(), 100);
  const std::span<const int32_t> all(pages);
  for (const AttentionShape& shape : {AttentionShape{9, 3, 64}, AttentionShape{4, 4, 64}, AttentionShape{16, 1, 64}, AttentionShape{14, 2, 64}}) {
    const SequenceRows sequences[] = {{all.first(2), 0, 17}, {all, 600, 1}, {all.subspan(3), 16, 16}};
    const cuda::StepTiles step = cuda::plan_tiles(sequences, shape);
    EXPECT_EQ(step.queries, 8);
    EXPECT_EQ(step.most_parts, 3);
    ASSERT_EQ(step.positions.size(), 34u);
    EXPECT_EQ(step.positions[17], 600);
    EXPECT_EQ(step.row_pages[16], 101);
    EXPECT_EQ(step.row_pages[17], 137);
    int32_t next = 0;
    for (const cuda::Tile& tile : step.tiles) {
      EXPECT_EQ(tile.row, next);
      for (int r = 0; r < tile.count; ++r) {
        EXPECT_EQ(tile.position + r, step.positions[static_cast<size_t>(tile.row + r)]);
        EXPECT_EQ(step.pages[static_cast<size_t>(tile.pages + (tile.position + r) / kPageTokens)], step.row_pages[static_cast<size_t>(tile.row + r)]);
      }
      EXPECT_TRUE(tile.count == 1 || tile.count * (shape.heads / shape.kv_heads) <= step.queries);
      next += tile.count;
    }
    EXPECT_EQ(next, 34);
  }
}

TEST(StepTiles, AreSmallerWhereEachSequenceHasOneRowAndFewHeadsShareAKey) {
  const std::vector<int32_t> page = {0};
  const SequenceRows one[] = {{page, 3, 1}, {page, 4, 1}}, two[] = {{page, 3, 2}};
  EXPECT_EQ(cuda::plan_tiles(one, {9, 3, 64}).queries, 4);
  EXPECT_EQ(cuda::plan_tiles(one, {14, 2, 64}).queries, 8);
  EXPECT_EQ(cuda::plan_tiles(two, {9, 3, 64}).queries, 8);
}

TEST(StepTiles, AreTakenInRangesOfSoManyRows) {
  const std::vector<cuda::Tile> tiles = {{0, 2, 0, 0}, {2, 2, 2, 0}, {4, 1, 4, 0}, {5, 1, 0, 9}};
  const auto ends = [&](int64_t rows) {
    std::vector<int64_t> found;
    for (const cuda::TileRange& range : cuda::ranges_of(tiles, rows)) {
      EXPECT_EQ(range.begin, found.empty() ? 0 : found.back());
      found.push_back(range.end);
    }
    return found;
  };
  EXPECT_EQ(ends(100), (std::vector<int64_t>{4}));
  EXPECT_EQ(ends(3), (std::vector<int64_t>{1, 3, 4}));
  EXPECT_EQ(ends(1), (std::vector<int64_t>{1, 2, 3, 4}));
}

// A sequence's rows in a step, with pages of its own.
struct Rows {
  int start, count;
};

class CudaAttention : public ::testing::Test {
 protected:
  void SetUp() override {
    if (tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
    if (!cuda::built()) GTEST_SKIP() << "built without CUDA kernels of our own (PENSTOCK_CUDA_KERNELS)";
  }

  // A cache of random numbers, but NaN where none of the sequences has a position before its rows. Pages are dealt in a random order.
  struct Step {
    Step(const AttentionShape& shape, at::ScalarType type, const std::vector<Rows>& rows) {
      int64_t needed = 0;
      for (const Rows& r : rows) needed += (r.start + r.count + kPageTokens - 1) / kPageTokens;
      const Tensor order = at::randperm(needed + 3, at::kInt);
      k = at::full({needed + 3, shape.kv_heads, shape.head_size, kPageTokens}, NAN, type);
      v = at::full({needed + 3, shape.kv_heads, kPageTokens, shape.head_size}, NAN, type);
      int64_t count = 0, next = 0;
      for (const Rows& r : rows) {
        std::vector<int32_t>& own = pages.emplace_back();
        for (int first = 0; first < r.start + r.count; first += kPageTokens) {
          own.push_back(order.data_ptr<int32_t>()[next++]);
          const int held = std::clamp(r.start - first, 0, kPageTokens);
          k[own.back()].narrow(-1, 0, held).normal_();
          v[own.back()].narrow(-2, 0, held).normal_();
        }
        count += r.count;
      }
      for (size_t i = 0; i < rows.size(); ++i) sequences.push_back({pages[i], rows[i].start, rows[i].count});
      qkv = at::randn({count, shape.row()});
    }
    Tensor k, v, qkv;
    std::vector<std::vector<int32_t>> pages;
    std::vector<SequenceRows> sequences;
  };

  static Tensor table(const RotaryTable& rotary) {
    const auto rows = [&](const float* data) { return at::from_blob(const_cast<float*>(data), {rotary.max_positions(), rotary.half()}, at::kFloat); };
    return at::stack({rows(rotary.cos(0)), rows(rotary.sin(0))}, 1).to(at::kCUDA);
  }

  static Tensor attend(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, std::span<const SequenceRows> sequences, Tensor& k, Tensor& v) {
    at::full({qkv.size(0) * shape.heads * shape.head_size}, NAN, at::TensorOptions(at::kCUDA).dtype(at::kFloat));  // the result's memory
    return cuda::paged_attention(qkv.to(at::kCUDA), shape, table(rotary), cuda::StepTables(sequences, shape, at::Device(at::kCUDA, 0)), k, v);
  }

  static double difference(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>() / b.abs().max().item<double>(); }

  static void expect_same_pages(const Tensor& got, const Tensor& expected, const std::string& what) {
    const Tensor a = got.cpu().to(at::kFloat), b = expected.to(at::kFloat);
    EXPECT_TRUE(at::isnan(a).equal(at::isnan(b))) << what << ": other positions than the step's were written";
    EXPECT_LT(difference(at::nan_to_num(a, 0), at::nan_to_num(b, 0)), 5e-3) << what;
  }

  at::NoGradGuard no_grad_;
};

TEST_F(CudaAttention, EqualsTheCpusKernel) {
  const std::vector<std::vector<Rows>> steps = {
      {{0, 1}}, {{255, 1}}, {{256, 1}}, {{4095, 1}}, {{0, 37}}, {{250, 20}}, {{0, 1}, {17, 1}, {700, 1}, {31, 1}}, {{513, 3}, {5, 1}, {0, 30}, {1000, 9}, {15, 1}}};
  for (const AttentionShape& shape : {AttentionShape{9, 3, 64}, AttentionShape{32, 8, 128}, AttentionShape{14, 2, 64}, AttentionShape{3, 3, 80}, AttentionShape{20, 1, 32}, AttentionShape{2, 1, 10},
                                      AttentionShape{5, 5, 6}, AttentionShape{4, 2, 256}, AttentionShape{2, 2, 2}, AttentionShape{2, 2, 250}}) {
    const RotaryTable rotary(4096, shape.head_size, 10000);
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      for (size_t i = 0; i < steps.size(); ++i) {
        const std::string what = fmt::format("{} heads, {} key heads of {}, pages of {}, step {}", shape.heads, shape.kv_heads, shape.head_size, c10::toString(type), i);
        Step step(shape, type, steps[i]);
        Tensor k = step.k.to(at::kCUDA), v = step.v.to(at::kCUDA);
        const Tensor got = attend(step.qkv, shape, rotary, step.sequences, k, v).cpu();
        const Tensor expected = cached_attention(step.qkv.clone(), shape, rotary, step.sequences, step.k, step.v);
        EXPECT_LT(difference(got, expected), type == at::kFloat ? 1e-5 : 1e-2) << what;
        expect_same_pages(k, step.k, what + ", keys");
        expect_same_pages(v, step.v, what + ", values");
        if (HasFailure()) return;
      }
    }
  }
}

TEST_F(CudaAttention, ReadsAPageThatAnotherSequenceFillsInTheSameStep) {
  const AttentionShape shape{4, 2, 64};
  const RotaryTable rotary(64, 64, 10000);
  const std::vector<int32_t> first = {3, 1}, second = {3, 1, 0};
  const SequenceRows sequences[] = {{first, 0, 32}, {second, 32, 4}};
  Tensor k = at::full({4, 2, 64, kPageTokens}, NAN), v = at::full({4, 2, kPageTokens, 64}, NAN), on_gpu_k = k.to(at::kCUDA), on_gpu_v = v.to(at::kCUDA);
  const Tensor qkv = at::randn({36, shape.row()});
  const Tensor got = attend(qkv, shape, rotary, sequences, on_gpu_k, on_gpu_v).cpu();
  EXPECT_LT(difference(got, cached_attention(qkv.clone(), shape, rotary, sequences, k, v)), 1e-5);
}

TEST_F(CudaAttention, ARowsResultDependsOnThatRowAlone) {
  const AttentionShape shape{9, 3, 64};
  const RotaryTable rotary(2048, 64, 10000);
  const Step step(shape, at::kBFloat16, {{1200, 1}, {3, 1}, {700, 12}, {256, 1}});
  Tensor k = step.k.to(at::kCUDA), v = step.v.to(at::kCUDA);
  const Tensor together = attend(step.qkv, shape, rotary, step.sequences, k, v);
  int64_t row = 0;
  for (const SequenceRows& s : step.sequences) {
    for (int i = 0; i < s.count; ++i, ++row) {
      const SequenceRows alone[] = {{s.pages, s.start + i, 1}};
      EXPECT_TRUE(attend(step.qkv.narrow(0, row, 1), shape, rotary, alone, k, v).equal(together.narrow(0, row, 1))) << "row " << row << " at position " << s.start + i;
    }
  }
}

TEST_F(CudaAttention, TakesManyRowsOfALongContextInRanges) {
  const AttentionShape shape{32, 8, 64};
  const RotaryTable rotary(8192, 64, 10000);
  Step step(shape, at::kFloat, {{4000, 520}});  // 20 million floats of partial results
  Tensor k = step.k.to(at::kCUDA), v = step.v.to(at::kCUDA);
  const Tensor got = attend(step.qkv, shape, rotary, step.sequences, k, v).cpu();
  EXPECT_LT(difference(got, cached_attention(step.qkv.clone(), shape, rotary, step.sequences, step.k, step.v)), 1e-5);
}

}  // namespace
}  // namespace penstock::kernels
