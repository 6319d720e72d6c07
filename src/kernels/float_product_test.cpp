// Products of serving with floating-point weights, against plain arithmetic.
#include "kernels/float_product.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/amx.h"
#include "kernels/bf16_product.h"
#include "kernels/float_tiles.h"
#include "kernels/linear.h"
#include "kernels/parallel.h"
#include "tensor/cpu_features.h"

namespace penstock::kernels {
namespace {

using Floats = std::vector<float>;

Floats random_values(int64_t count, int seed) {
  std::mt19937 engine(static_cast<unsigned>(seed));
  std::normal_distribution<float> normal(0, 1);
  Floats values(static_cast<size_t>(count));
  for (float& v : values) v = normal(engine);
  return values;
}

// Cut off, not rounded: any numbers will do.
std::vector<Bfloat16> upper_halves(const Floats& values) {
  std::vector<Bfloat16> halves;
  for (const float v : values) halves.push_back(static_cast<Bfloat16>(std::bit_cast<uint32_t>(v) >> 16));
  return halves;
}

Floats floats_of(const std::vector<Bfloat16>& halves) {
  Floats values;
  for (const Bfloat16 half : halves) values.push_back(value_of(half));
  return values;
}

std::vector<const FloatKernels*> all_kernels() {
  const tensor::CpuFeatures cpu = tensor::cpu_features();
  std::vector<const FloatKernels*> all{&plain_float_kernels()};
  if (cpu.avx2) all.push_back(&avx2_float_kernels());
  if (cpu.avx512) all.push_back(&avx512_float_kernels());
  return all;
}

template <typename W>
Floats product(const std::vector<W>& weight, const Floats& x, const ProductSizes& sizes, const FloatKernels& kernels = best_float_kernels()) {
  Floats y(static_cast<size_t>(sizes.rows * sizes.outputs), std::nanf(""));
  multiply(weight.data(), x.data(), y.data(), sizes, kernels);
  return y;
}

struct PlainSum {
  double sum = 0;
  double size = 0;  // of what is summed
};

// Row m of x times row o of the weight.
PlainSum plain_sum(const Floats& weight, const Floats& x, int64_t columns, int64_t m, int64_t o) {
  PlainSum plain;
  for (int64_t k = 0; k < columns; ++k) {
    const double one = static_cast<double>(x[static_cast<size_t>(m * columns + k)]) * weight[static_cast<size_t>(o * columns + k)];
    plain.sum += one;
    plain.size += std::abs(one);
  }
  return plain;
}

// Rows of both, blocks of columns and what is left over of each.
constexpr ProductSizes kSizes[] = {{1, 1, 1}, {2, 3, 7}, {1, 5, 16}, {3, 36, 64}, {7, 33, 531}, {13, 130, 1040}, {100, 9, 40}};

TEST(FloatProduct, EqualsPlainArithmetic) {
  for (const FloatKernels* kernels : all_kernels()) {
    for (const ProductSizes& sizes : kSizes) {
      const Floats weight = floats_of(upper_halves(random_values(sizes.outputs * sizes.columns, 1))), x = random_values(sizes.rows * sizes.columns, 2);
      const Floats by_floats = product(weight, x, sizes, *kernels), by_halves = product(upper_halves(weight), x, sizes, *kernels);
      EXPECT_EQ(by_floats, by_halves) << kernels->name << ": the same numbers, the same bits";
      for (int64_t m = 0; m < sizes.rows; ++m) {
        for (int64_t o = 0; o < sizes.outputs; ++o) {
          const auto [sum, size] = plain_sum(weight, x, sizes.columns, m, o);
          ASSERT_NEAR(by_floats[static_cast<size_t>(m * sizes.outputs + o)], sum, 3e-6 * size) << kernels->name << " row " << m << ", output " << o << " of " << sizes.columns;
        }
      }
    }
  }
}

TEST(FloatProduct, ARowDependsOnItselfAlone) {
  constexpr int64_t kColumns = 1100, kOutputs = 70, kRows = 200;
  const Floats weight = random_values(kOutputs * kColumns, 3), x = random_values(kRows * kColumns, 4);
  for (const FloatKernels* kernels : all_kernels()) {
    Floats alone;
    for (int64_t m = 0; m < kRows; ++m) {
      const Floats row(x.begin() + m * kColumns, x.begin() + (m + 1) * kColumns), y = product(weight, row, {1, kOutputs, kColumns}, *kernels);
      alone.insert(alone.end(), y.begin(), y.end());
    }
    for (const int threads : {1, 2, 3}) {
      ThreadTeam team(threads);
      const TeamScope scope(team);
      for (const int64_t rows : {2, 3, 4, 5, 6, 11, 97, 200}) {
        const Floats y = product(weight, x, {rows, kOutputs, kColumns}, *kernels);
        ASSERT_TRUE(std::equal(y.begin(), y.end(), alone.begin())) << kernels->name << ", " << rows << " rows, " << threads << " threads";
      }
    }
  }
}

class AmxProduct : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_amx()) GTEST_SKIP() << "no AMX that this process may use";
  }

  static Floats product_of(const std::vector<Bfloat16>& weight, const Floats& x, const ProductSizes& sizes) {
    Floats y(static_cast<size_t>(sizes.rows * sizes.outputs), std::nanf(""));
    multiply_by_amx(weight.data(), x.data(), y.data(), sizes);
    return y;
  }
};

TEST_F(AmxProduct, EqualsPlainArithmeticToSixteenBits) {
  constexpr ProductSizes kMore[] = {{17, 16, 32}, {32, 32, 64}, {33, 65, 96}, {48, 300, 576}};
  std::vector<ProductSizes> all(std::begin(kSizes), std::end(kSizes));
  all.insert(all.end(), std::begin(kMore), std::end(kMore));
  for (const ProductSizes& sizes : all) {
    std::vector<Bfloat16> weight = upper_halves(random_values(sizes.outputs * sizes.columns, 1));
    const Floats w = floats_of(weight), x = random_values(sizes.rows * sizes.columns, 2);
    weight.resize(weight.size() + 64, 0x7FC0);  // what stands behind the weight is not part of it
    const Floats y = product_of(weight, x, sizes);
    for (int64_t m = 0; m < sizes.rows; ++m) {
      for (int64_t o = 0; o < sizes.outputs; ++o) {
        const auto [sum, size] = plain_sum(w, x, sizes.columns, m, o);
        ASSERT_NEAR(y[static_cast<size_t>(m * sizes.outputs + o)], sum, 0x1p-16 * size) << "row " << m << ", output " << o << " of " << sizes.columns;
      }
    }
  }
}

TEST_F(AmxProduct, ARowDependsOnItselfAlone) {
  constexpr int64_t kColumns = 1100, kOutputs = 600, kRows = 70;
  const std::vector<Bfloat16> weight = upper_halves(random_values(kOutputs * kColumns, 3));
  Floats x = random_values(kRows * kColumns, 4), alone;
  x[3 * kColumns + 5] = std::numeric_limits<float>::infinity();
  for (int64_t m = 0; m < kRows; ++m) {
    const Floats row(x.begin() + m * kColumns, x.begin() + (m + 1) * kColumns), y = product_of(weight, row, {1, kOutputs, kColumns});
    for (const float value : y) ASSERT_EQ(std::isfinite(value), m != 3);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (const int threads : {1, 3}) {
    ThreadTeam team(threads);
    const TeamScope scope(team);
    for (const int64_t rows : {2, 15, 16, 17, 33, 70}) {
      const Floats y = product_of(weight, x, {rows, kOutputs, kColumns});
      ASSERT_EQ(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)), 0) << rows << " rows, " << threads << " threads";
    }
  }
}

TEST(FloatProduct, IsWhatLinearGivesOnATeam) {
  const at::NoGradGuard no_grad;
  ThreadTeam team(2);
  const TeamScope scope(team);
  at::manual_seed(5);
  const Tensor x = at::randn({2, 5, 48}), weight = at::randn({30, 48}), half = weight.to(at::kBFloat16), bias = at::randn({30});
  const LinearOptions options{Compute::kBf16};
  EXPECT_LT((linear(x, weight, bias, options) - at::linear(x, weight, bias)).abs().max().item<double>(), 1e-4);
  EXPECT_LT((linear(x, half, bias, options) - at::linear(x, half.to(at::kFloat), bias)).abs().max().item<double>(), 1e-4)
      << "activations are not rounded, nor is the result";
}

TEST(OpenMpScope, GivesATeamsThreadsBackForAWhile) {
  const int before = at::get_num_threads();
  ThreadTeam team(3);
  {
    const TeamScope scope(team);
    EXPECT_EQ(at::get_num_threads(), 1);
    {
      const OpenMpScope openmp;
      EXPECT_EQ(current_team(), nullptr);
      EXPECT_EQ(at::get_num_threads(), 3);
    }
    EXPECT_EQ(current_team(), &team);
    EXPECT_EQ(at::get_num_threads(), 1);
  }
  EXPECT_EQ(at::get_num_threads(), before);
}

}  // namespace
}  // namespace penstock::kernels
