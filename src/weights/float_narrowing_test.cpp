// The torch-free rounding of formats/float_narrowing.h against LibTorch's.
#include "formats/float_narrowing.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>

namespace penstock::formats {
namespace {

void expect_as_libtorch(const at::Tensor& floats) {
  for (const auto& [name, type] : {std::pair("BF16", at::kBFloat16), std::pair("F16", at::kHalf)}) {
    const auto bytes = narrowed({static_cast<const std::byte*>(floats.data_ptr()), floats.nbytes()}, name);
    const at::Tensor ours = at::from_blob(const_cast<std::byte*>(bytes.data()), floats.sizes(), type), theirs = floats.to(type);
    const at::Tensor same = ours.view(at::kShort).eq(theirs.view(at::kShort)).logical_or(ours.isnan().logical_and(theirs.isnan()));
    EXPECT_TRUE(same.all().item<bool>()) << name << " of " << floats.masked_select(same.logical_not()).slice(0, 0, 5);
  }
}

TEST(FloatNarrowing, RoundsAsLibTorchDoes) {
  // Every sign and exponent, with fractions around each boundary of both types.
  std::vector<float> values;
  for (uint32_t high = 0; high < 512; ++high) {
    for (const uint32_t fraction : {0u, 1u, 0xFFFu, 0x1000u, 0x1001u, 0x1FFFu, 0x2FFFu, 0x3000u, 0x3001u, 0x7FFFu, 0x8000u, 0x8001u, 0x17FFFu, 0x18000u, 0x3FFFFFu, 0x400000u, 0x7FEFFFu, 0x7FF000u, 0x7FFFFFu}) {
      const uint32_t bits = (high << 23) | fraction;
      values.push_back(0);
      std::memcpy(&values.back(), &bits, 4);
    }
  }
  expect_as_libtorch(at::tensor(values));
  at::manual_seed(3);
  expect_as_libtorch(at::randn({100000}));
  expect_as_libtorch(at::randn({100000}) * 1e-6);  // below the smallest normal float16
}

}  // namespace
}  // namespace penstock::formats
