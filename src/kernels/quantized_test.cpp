// Quantized weights: blocks, their layout for products, and products against plain arithmetic.
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "kernels/amx.h"
#include "kernels/embedding.h"
#include "kernels/linear.h"
#include "kernels/memory_bandwidth.h"
#include "kernels/parallel.h"
#include "kernels/quantized_linear.h"
#include "kernels/quantized_product.h"
#include "kernels/quantized_tiles.h"
#include "tensor/cpu_features.h"

namespace penstock::kernels {
namespace {

constexpr BlockFormat kFormats[] = {BlockFormat::kInt8, BlockFormat::kInt4, BlockFormat::kInt4Min};

std::vector<float> random_values(int64_t count, int seed, float deviation = 1) {
  std::mt19937 engine(static_cast<unsigned>(seed));
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& v : values) v = normal(engine);
  return values;
}

TEST(Half, IsWhatLibTorchComputes) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float expected = c10::Half(static_cast<uint16_t>(bits), c10::Half::from_bits());
    const float found = float_of(static_cast<uint16_t>(bits));
    ASSERT_TRUE(found == expected || (std::isnan(found) && std::isnan(expected))) << bits;
  }
  std::mt19937 engine(1);
  for (int i = 0; i < 1000000; ++i) {
    const auto bits = static_cast<uint32_t>(engine());
    const auto value = std::bit_cast<float>(bits);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(float_of(half_of(value))));
    } else {
      ASSERT_EQ(half_of(value), c10::Half(value).x) << value;
    }
  }
}

// Root of the mean squared difference, relative to that of the values.
double rounding_error(BlockFormat format, const std::vector<float>& values) {
  const auto columns = static_cast<int64_t>(values.size());
  std::vector<std::byte> blocks(static_cast<size_t>(row_bytes(format, columns)));
  std::vector<float> back(values.size());
  quantize_row(format, values.data(), columns, blocks.data());
  dequantize_row(format, blocks.data(), columns, back.data());
  double error = 0, size = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    error += (back[i] - values[i]) * (back[i] - values[i]);
    size += values[i] * values[i];
  }
  return std::sqrt(error / size);
}

TEST(QuantizedBlocks, RoundNormalValuesAsFinelyAsTheirBitsAllow) {
  const auto values = random_values(32 * 200 + 13, 1);
  EXPECT_LT(rounding_error(BlockFormat::kInt8, values), 0.006);
  EXPECT_LT(rounding_error(BlockFormat::kInt4, values), 0.10);
  EXPECT_LT(rounding_error(BlockFormat::kInt4Min, values), 0.09);
}

TEST(QuantizedBlocks, AMinimumServesValuesOfOneSign) {
  auto values = random_values(32 * 50, 2, 0.1f);
  for (float& v : values) v += 5;
  EXPECT_LT(rounding_error(BlockFormat::kInt4Min, values), 0.003);
}

TEST(QuantizedBlocks, KeepWhatTheyCanHoldExactly) {
  std::vector<float> grid(32);
  for (int i = 0; i < 32; ++i) grid[static_cast<size_t>(i)] = 0.5f * static_cast<float>(i % 16 - 8);
  for (const BlockFormat format : kFormats) {
    if (format != BlockFormat::kInt8) {
      EXPECT_EQ(rounding_error(format, grid), 0) << static_cast<int>(format);
    }
    EXPECT_TRUE(std::isnan(rounding_error(format, std::vector<float>(64, 0.0f)))) << "zeros stay zeros, 0/0";
    EXPECT_LT(rounding_error(format, std::vector<float>(40, 3.0f)), 0.001);
  }
}

TEST(QuantizedBlocks, AValueThatIsNotFiniteShows) {
  for (const BlockFormat format : kFormats) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      auto values = random_values(64, 3);
      values[40] = bad;
      std::vector<std::byte> blocks(static_cast<size_t>(row_bytes(format, 64)));
      quantize_row(format, values.data(), 64, blocks.data());
      dequantize_row(format, blocks.data(), 64, values.data());
      EXPECT_TRUE(std::isfinite(values[31]));
      EXPECT_FALSE(std::isfinite(values[40]));
    }
  }
}

TEST(QuantizedWeight, GivesBackTheRowsOfItsBlocksInAllFormatsAtOnce) {
  constexpr int64_t kColumns = 172, kRows[] = {20, 16, 5};
  std::vector<QuantizedWeight::Rows> parts;
  for (int i = 0; i < 3; ++i) parts.push_back({kFormats[i], kRows[i]});
  QuantizedWeight by_values(kColumns, parts), by_blocks(kColumns, parts);
  const auto values = random_values(41 * kColumns, 4);
  by_values.set_values(0, 41, values.data());
  int64_t row = 0;
  for (const auto& part : parts) {
    for (int64_t i = 0; i < part.count; ++i, ++row) {
      std::vector<std::byte> blocks(static_cast<size_t>(row_bytes(part.format, kColumns)));
      std::vector<float> expected(kColumns), found(kColumns);
      quantize_row(part.format, values.data() + row * kColumns, kColumns, blocks.data());
      dequantize_row(part.format, blocks.data(), kColumns, expected.data());
      by_blocks.set_blocks(part.format, row, 1, blocks.data());
      by_blocks.get_values(row, found.data());
      ASSERT_EQ(found, expected) << row;
      by_values.get_values(row, found.data());
      ASSERT_EQ(found, expected) << row;
    }
  }
  EXPECT_EQ(by_values.rows(), 41);
}

TEST(QuantizedWeight, TakesAboutItsBitsOfMemory) {
  const auto bits = [](BlockFormat format) { return 8.0 * static_cast<double>(QuantizedWeight(2048, format, 512).bytes()) / (2048 * 512); };
  EXPECT_NEAR(bits(BlockFormat::kInt8), 8.5, 0.01);
  EXPECT_NEAR(bits(BlockFormat::kInt4), 4.5, 0.01);
  EXPECT_NEAR(bits(BlockFormat::kInt4Min), 5.0, 0.01);
}

// Each that this processor can run, the plain ones first.
std::vector<const TileKernels*> all_kernels() {
  std::vector<const TileKernels*> all{&plain_tile_kernels()};
  const tensor::CpuFeatures cpu = tensor::cpu_features();
  if (cpu.avx2 && cpu.f16c) all.push_back(&avx2_tile_kernels());
  if (cpu.avx512_vnni) all.push_back(&avx512_tile_kernels());
  if (has_amx()) all.push_back(&amx_tile_kernels());
  return all;
}

struct Case {
  BlockFormat format;
  int64_t rows, columns, outputs;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const BlockFormat format : kFormats) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 13, 16, 33, 130}) {
      for (const auto& [columns, outputs] : {std::pair<int64_t, int64_t>(64, 16), {172, 37}, {576, 112}}) all.push_back({format, rows, columns, outputs});
    }
  }
  return all;
}

QuantizedWeight random_weight(const Case& c) {
  QuantizedWeight weight(c.columns, c.format, c.outputs);
  weight.set_values(0, c.outputs, random_values(c.outputs * c.columns, 5).data());
  return weight;
}

std::vector<float> product(const QuantizedWeight& weight, const std::vector<float>& x, const TileKernels& kernels) {
  const int64_t rows = static_cast<int64_t>(x.size()) / weight.columns();
  std::vector<float> y(static_cast<size_t>(rows * weight.rows()), -1.0f);
  multiply(weight, x.data(), rows, y.data(), kernels);
  return y;
}

// The largest difference relative to the largest value.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double top = 0, most = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    top = std::max<double>(top, std::abs(b[i]));
    most = std::max<double>(most, std::abs(a[i] - b[i]));
  }
  return most / top;
}

TEST(QuantizedProduct, IsThatOfTheRoundedWeightButForTheActivationsRounding) {
  for (const Case& c : cases()) {
    const QuantizedWeight weight = random_weight(c);
    const auto x = random_values(c.rows * c.columns, 6);
    std::vector<float> w(static_cast<size_t>(c.columns)), expected(static_cast<size_t>(c.rows * c.outputs));
    for (int64_t o = 0; o < c.outputs; ++o) {
      weight.get_values(o, w.data());
      for (int64_t m = 0; m < c.rows; ++m) {
        double sum = 0;
        for (int64_t k = 0; k < c.columns; ++k) sum += static_cast<double>(x[static_cast<size_t>(m * c.columns + k)]) * w[static_cast<size_t>(k)];
        expected[static_cast<size_t>(m * c.outputs + o)] = static_cast<float>(sum);
      }
    }
    EXPECT_LT(difference(product(weight, x, plain_tile_kernels()), expected), 0.01) << static_cast<int>(c.format) << ' ' << c.rows << ' ' << c.columns;
  }
}

// The first token of a text has such activations: one value thousands of times as large as those beside it.
TEST(QuantizedProduct, OneHugeActivationDoesNotCostThoseBesideIt) {
  constexpr int64_t kColumns = 576, kOutputs = 48, kRows = 3;
  QuantizedWeight weight(kColumns, BlockFormat::kInt8, kOutputs);
  auto w = random_values(kOutputs * kColumns, 8);
  for (int64_t o = 0; o < kOutputs; ++o) w[static_cast<size_t>(o * kColumns + 7)] = 0;
  weight.set_values(0, kOutputs, w.data());
  auto x = random_values(kRows * kColumns, 9);
  const auto without = product(weight, x, plain_tile_kernels());
  x[kColumns + 7] = 3000;  // of the second row; its weights are zero
  for (const TileKernels* kernels : all_kernels()) EXPECT_LT(difference(product(weight, x, *kernels), without), 0.01) << kernels->name;
}

TEST(QuantizedProduct, IsTheSameOnEveryInstructionSet) {
  for (const Case& c : cases()) {
    const QuantizedWeight weight = random_weight(c);
    const auto x = random_values(c.rows * c.columns, 7);
    const auto expected = product(weight, x, plain_tile_kernels());
    for (const TileKernels* kernels : all_kernels()) {
      EXPECT_LT(difference(product(weight, x, *kernels), expected), 1e-5) << kernels->name << ' ' << static_cast<int>(c.format) << ' ' << c.rows << ' ' << c.columns;
    }
  }
}

// Blocks of the largest sizes that a file may hold: sums of 16 bits must not overflow.
TEST(QuantizedProduct, IsExactForTheLargestIntegers) {
  for (const BlockFormat format : kFormats) {
    std::vector<std::byte> blocks(static_cast<size_t>(row_bytes(format, 64)), std::byte{0xff});
    const bool is_int8 = format == BlockFormat::kInt8;
    for (int64_t b = 0; b < 2; ++b) {
      std::byte* block = blocks.data() + b * block_bytes(format);
      if (is_int8) std::fill(block, block + block_bytes(format), std::byte{0x80});
      const uint16_t one = half_of(1), minimum = half_of(-3);
      std::memcpy(block, &one, 2);
      if (format == BlockFormat::kInt4Min) std::memcpy(block + 2, &minimum, 2);
    }
    QuantizedWeight weight(64, format, 16);
    for (int64_t r = 0; r < 16; ++r) weight.set_blocks(format, r, 1, blocks.data());
    const float value = is_int8 ? -128.0f : (format == BlockFormat::kInt4 ? 7.0f : 12.0f);
    for (const float sign : {1.0f, -1.0f}) {
      for (const TileKernels* kernels : all_kernels()) {
        for (const float y : product(weight, std::vector<float>(64 * 33, sign * 127.0f), *kernels)) EXPECT_FLOAT_EQ(y, 64 * 127 * sign * value) << kernels->name;
      }
    }
  }
}

TEST(QuantizedProduct, OfARowDependsNeitherOnTheOthersNorOnThreads) {
  ThreadTeam team(3);
  for (const Case& c : cases()) {
    const QuantizedWeight weight = random_weight(c);
    const auto x = random_values(c.rows * c.columns, 8);
    const auto together = product(weight, x, best_tile_kernels());
    {
      const TeamScope scope(team);
      EXPECT_EQ(product(weight, x, best_tile_kernels()), together);
    }
    for (int64_t m = 0; m < c.rows; m += 3) {
      const std::vector<float> row(x.begin() + m * c.columns, x.begin() + (m + 1) * c.columns);
      const std::vector<float> among(together.begin() + m * c.outputs, together.begin() + (m + 1) * c.outputs);
      ASSERT_EQ(product(weight, row, best_tile_kernels()), among) << "row " << m << " of " << c.rows;
    }
  }
}

TEST(QuantizedProduct, OfAMatrixOfSeveralFormatsIsThatOfEachPart) {
  constexpr int64_t kColumns = 172, kRows[] = {70, 16, 5};
  std::vector<QuantizedWeight::Rows> parts;
  for (int i = 0; i < 3; ++i) parts.push_back({kFormats[i], kRows[i]});
  QuantizedWeight whole(kColumns, parts);
  const auto values = random_values(91 * kColumns, 4);
  whole.set_values(0, 91, values.data());
  for (const int64_t rows : {1, 100, 250}) {
    const auto x = random_values(rows * kColumns, 5);
    for (const TileKernels* kernels : all_kernels()) {
      const auto y = product(whole, x, *kernels);
      int64_t first = 0;
      for (const auto& part : parts) {
        QuantizedWeight alone(kColumns, part.format, part.count);
        alone.set_values(0, part.count, values.data() + first * kColumns);
        const auto of_part = product(alone, x, *kernels);
        for (int64_t m = 0; m < rows; ++m) {
          ASSERT_TRUE(std::equal(of_part.begin() + m * part.count, of_part.begin() + (m + 1) * part.count, y.begin() + m * 91 + first)) << kernels->name << ' ' << m;
        }
        first += part.count;
      }
    }
  }
}

TEST(QuantizedProduct, AnActivationThatIsNotFiniteShowsInItsRowOnly) {
  for (const int64_t rows : {3, 18}) {
    const Case c{BlockFormat::kInt4, rows, 64, 16};
    const QuantizedWeight weight = random_weight(c);
    auto x = random_values(rows * 64, 9);
    x[64 + 5] = std::numeric_limits<float>::infinity();
    for (const TileKernels* kernels : all_kernels()) {
      const auto y = product(weight, x, *kernels);
      for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(std::isfinite(y[i]), i / 16 != 1) << kernels->name;
    }
  }
}

TEST(QuantizedWeights, StandInForTheTensorsOfLayers) {
  at::manual_seed(1);
  Tensor weight = at::randn({40, 64}), other = at::randn({8, 64});
  const Tensor x = at::randn({2, 3, 64}), ids = at::tensor({3, 39, 0}, at::kLong), bias = at::randn({40});
  const Tensor expected = kernels::linear(x, weight, bias, {}), rows = kernels::embedding(weight, ids);
  QuantizedWeight quantized(64, BlockFormat::kInt8, 40);
  quantized.set_values(0, 40, weight.data_ptr<float>());
  QuantizedWeights weights;
  weights.put(weight, std::move(quantized));
  EXPECT_EQ(weight.sizes(), at::IntArrayRef({40, 64}));
  EXPECT_LE(weight.storage().nbytes(), 4u) << "the float values must be gone";
  LinearOptions options;
  options.quantized = &weights;
  EXPECT_LT((kernels::linear(x, weight, bias, options) - expected).abs().max().item<float>(), 0.02 * expected.abs().max().item<float>());
  EXPECT_LT((kernels::embedding(weight, ids, options) - rows).abs().max().item<float>(), 0.02);
  EXPECT_TRUE(kernels::linear(x, other, options).equal(kernels::linear(x, other))) << "a weight that is not quantized";
  EXPECT_EQ(weights.find(other), nullptr);
}

TEST(MemoryBandwidth, IsMeasured) { EXPECT_GT(measure_read_bandwidth(8 << 20, 0.01), 1e8); }

}  // namespace
}  // namespace penstock::kernels
