#include "kernels/quantized_rows.h"

#include <algorithm>
#include <bit>

#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

constexpr int kBlock = static_cast<int>(kBlockValues);

// One row of whole blocks.
PENSTOCK_CLONES void quantize_blocks(const float* x, int64_t blocks, int8_t* values, float* scales, int32_t* corrections, float* sums) {
  for (int64_t b = 0; b < blocks; ++b, x += kBlock, values += kBlock) {
    float top = 0, poison = 0;  // poison: NaN where a value is not finite, else 0
#pragma omp simd reduction(max : top) reduction(+ : poison)
    for (int i = 0; i < kBlock; ++i) {
      const float size = x[i] < 0 ? -x[i] : x[i];
      top = size > top ? size : top;
      poison += x[i] * 0.0f;
    }
    const float inverse = top > 1e-30f ? 127.0f / top : 0.0f;
    int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < kBlock; ++i) {
      // Adding 1.5 · 2^23 rounds to the nearest integer, which then stands in the low bits.
      const auto q = static_cast<int8_t>(std::bit_cast<int32_t>(x[i] * inverse + 12582912.0f) - 0x4B400000);
      values[i] = q;
      sum += q;
    }
    const float scale = (top > 1e-30f ? top / 127.0f : 0.0f) + poison;
    scales[b] = scale;
    corrections[b] = -8 * sum;
    sums[b] = scale * static_cast<float>(sum);
  }
}

template <typename T>
std::unique_ptr<T[]> unset(int64_t count) {
  return std::make_unique_for_overwrite<T[]>(static_cast<size_t>(count));
}

}  // namespace

QuantizedRows::QuantizedRows(int64_t rows, int64_t columns)
    : rows_(rows),
      columns_(columns),
      blocks_(row_blocks(columns)),
      values_(unset<int8_t>(rows * blocks_ * kBlockValues)),
      scales_(unset<float>(rows * blocks_)),
      sums_(unset<float>(rows * blocks_)),
      corrections_(unset<int32_t>(rows * blocks_)) {}

void QuantizedRows::set(int64_t first, int64_t count, const float* x) {
  const int64_t whole = columns_ / kBlockValues;
  for (int64_t r = first; r < first + count; ++r, x += columns_) {
    int8_t* values = values_.get() + r * blocks_ * kBlockValues;
    const int64_t at = r * blocks_, end = at + whole;
    quantize_blocks(x, whole, values, scales_.get() + at, corrections_.get() + at, sums_.get() + at);
    if (whole == blocks_) continue;
    float filled[kBlock] = {};
    std::copy(x + whole * kBlockValues, x + columns_, filled);
    quantize_blocks(filled, 1, values + whole * kBlockValues, scales_.get() + end, corrections_.get() + end, sums_.get() + end);
  }
}

}  // namespace penstock::kernels
