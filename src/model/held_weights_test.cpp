#include "model/held_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "model/new_parameter.h"

namespace penstock::model {
namespace {

using formats::GgmlType;
using kernels::BlockFormat;

Parameter product(const std::string& name, int64_t rows, int64_t columns) {
  at::manual_seed(1);
  Parameter p = used_as(WeightUse::kProduct, whole(name, new_weight({rows, columns}), 0.02));
  const at::NoGradGuard no_grad;
  p.value.copy_(at::randn({rows, columns}));
  return p;
}

// Two rows of each part, of the types in turn.
Parameter fused(std::initializer_list<const char*> names) {
  Parameter p = product("qkv", 2 * static_cast<int64_t>(names.size()), 32);
  p.stored.clear();
  int64_t row = 0;
  for (const char* name : names) {
    p.stored.push_back({name, row, row + 2});
    row += 2;
  }
  return p;
}

TEST(HeldWeights, AreInt8OrInt4AsAskedAndTablesAlwaysInt8) {
  Parameter p = product("w", 5, 32), table = used_as(WeightUse::kTable, product("t", 5, 32)), norm = whole("n", new_weight({5}), 0);
  const auto format = [](const Parameter& of, Quantization quantization) { return held_rows(of, quantization, {}).at(0).format; };
  EXPECT_EQ(format(p, Quantization::kInt8), BlockFormat::kInt8);
  EXPECT_EQ(format(p, Quantization::kInt4), BlockFormat::kInt4Min);
  EXPECT_EQ(format(table, Quantization::kInt4), BlockFormat::kInt8);
  for (const Quantization q : {Quantization::kInt8, Quantization::kInt4, Quantization::kAsStored}) EXPECT_TRUE(held_rows(norm, q, {}).empty());
  EXPECT_TRUE(held_rows(p, Quantization::kNone, {}).empty());
  EXPECT_TRUE(held_rows(p, Quantization::kAsStored, {}).empty()) << "floats stay floats";
}

TEST(HeldWeights, AsStoredGivesEachPartTheBlocksOfItsFile) {
  const StoredBlocks stored = [](const StoredRows& rows) -> std::optional<GgmlType> {
    if (rows.name == "q") return GgmlType::kQ4_0;
    if (rows.name == "k") return GgmlType::kQ4_K;
    if (rows.name == "v") return GgmlType::kQ6_K;
    return std::nullopt;
  };
  const auto rows = held_rows(fused({"q", "k", "v"}), Quantization::kAsStored, stored);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].format, BlockFormat::kInt4);
  EXPECT_EQ(rows[1].format, BlockFormat::kInt4Min);
  EXPECT_EQ(rows[2].format, BlockFormat::kInt8);
  EXPECT_EQ(rows[2].count, 2);
  EXPECT_TRUE(held_rows(fused({"q", "floats"}), Quantization::kAsStored, stored).empty()) << "nothing is rounded that was not";
}

// As llama.cpp makes them: Q8_0 by the largest value, Q4_0 with the value of largest size at −8, Q4_1 from the smallest to the largest.
std::vector<float> values_of_a_file(GgmlType type) {
  std::vector<float> x(32 * 64);
  at::manual_seed(2);
  const at::Tensor noise = at::randn({32 * 64});
  for (size_t b = 0; b < 64; ++b) {
    const float* from = noise.data_ptr<float>() + 32 * b;
    const auto [low, high] = std::minmax_element(from, from + 32);
    const float top = -*low > *high ? *low : *high;
    const auto half = [](float value) { return kernels::float_of(kernels::half_of(value)); };
    const float d = type == GgmlType::kQ8_0 ? half(std::abs(top) / 127) : half(type == GgmlType::kQ4_0 ? top / -8 : (*high - *low) / 15), m = half(*low);
    for (size_t i = 0; i < 32; ++i) {
      const float q = std::round(type == GgmlType::kQ4_1 ? (from[i] - m) / d : from[i] / d);
      if (type == GgmlType::kQ8_0) x[32 * b + i] = d * std::clamp(q, -127.0f, 127.0f);
      if (type == GgmlType::kQ4_0) x[32 * b + i] = d * std::clamp(q, -8.0f, 7.0f);
      if (type == GgmlType::kQ4_1) x[32 * b + i] = d * std::clamp(q, 0.0f, 15.0f) + m;
    }
  }
  return x;
}

TEST(HeldWeights, BlocksOfAFileKeepTheirValues) {
  for (const GgmlType type : {GgmlType::kQ8_0, GgmlType::kQ4_0, GgmlType::kQ4_1}) {
    Parameter p = product("w", 16, 128);
    const auto values = values_of_a_file(type);
    {
      const at::NoGradGuard no_grad;
      p.value.copy_(at::tensor(values).view({16, 128}));
    }
    kernels::QuantizedWeights into;
    hold(p, Quantization::kAsStored, kernels::Compute::kFp32, [&](const StoredRows&) { return std::optional(type); }, into);
    const auto* held = into.find(p.value);
    ASSERT_NE(held, nullptr);
    std::vector<float> row(128);
    for (int64_t r = 0; r < 16; ++r) {
      held->get_values(r, row.data());
      for (size_t i = 0; i < 128; ++i) ASSERT_NEAR(row[i], values[static_cast<size_t>(r) * 128 + i], 1e-6) << formats::ggml_type_name(type) << " row " << r;
    }
  }
}

TEST(HeldWeights, FreeTheFloatsThatTheyWereMadeOf) {
  Parameter p = product("w", 16, 64);
  kernels::QuantizedWeights into;
  hold(p, Quantization::kInt8, kernels::Compute::kFp32, {}, into);
  EXPECT_LE(p.value.storage().nbytes(), 4u);
  EXPECT_EQ(p.value.size(0), 16);
  EXPECT_NEAR(static_cast<double>(into.bytes()), 16 * 64 * 1.0625, 1);
}

TEST(HeldWeights, AreBfloat16WhereProductsAre) {
  Parameter p = product("w", 256, 256), small = product("s", 255, 256), norm = whole("n", new_weight({70'000}), 0), part = product("p", 128, 256);
  part.stored[0].cut = {0, 128, 256};  // of a parameter as large as the first
  kernels::QuantizedWeights into;
  for (Parameter* parameter : {&p, &small, &norm, &part}) hold(*parameter, Quantization::kNone, kernels::Compute::kBf16, {}, into);
  EXPECT_EQ(p.value.scalar_type(), at::kBFloat16);
  EXPECT_EQ(part.value.scalar_type(), at::kBFloat16);
  EXPECT_EQ(small.value.scalar_type(), at::kFloat) << "rounding it saves nothing";
  EXPECT_EQ(norm.value.scalar_type(), at::kFloat);
  EXPECT_FALSE(p.value.requires_grad());
  EXPECT_TRUE(into.empty());
}

TEST(HeldWeights, AValueThatIsNotFiniteIsRefusedByName) {
  Parameter p = product("model.layers.3.mlp.down_proj.weight", 4, 32);
  {
    const at::NoGradGuard no_grad;
    p.value[2][3] = std::numeric_limits<float>::quiet_NaN();
  }
  kernels::QuantizedWeights into;
  try {
    hold(p, Quantization::kInt4, kernels::Compute::kFp32, {}, into);
    FAIL();
  } catch (const Error& failed) {
    EXPECT_EQ(failed.code(), Code::kDataLoss);
    EXPECT_NE(failed.message().find("model.layers.3.mlp.down_proj.weight: holds a value that is not finite"), std::string::npos) << failed.message();
  }
  EXPECT_THROW((void)quantization("int3"), Error);
}

TEST(HeldWeights, BlocksOfAFileAreNotCutBetweenTensorRanks) {
  const StoredBlocks stored = [](const StoredRows&) { return GgmlType::kQ8_0; };
  Parameter p = product("o_proj", 5, 64);
  p.stored[0].cut = {1, 64, 160};
  EXPECT_EQ(held_rows(p, Quantization::kAsStored, stored).size(), 1u);
  p.stored[0].cut.first = 80;
  EXPECT_EQ(held_rows(p, Quantization::kInt8, stored).size(), 1u) << "made anew from this rank's columns";
  try {
    (void)held_rows(p, Quantization::kAsStored, stored);
    FAIL() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.message(), "o_proj: this tensor rank has columns 80 to 143 of 160, which cut a block of 32 quantized columns of the file; use another number of tensor ranks, or "
                           "handler.quantization: int8, int4 or none");
  }
}

}  // namespace
}  // namespace penstock::model
