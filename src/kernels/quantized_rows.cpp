#include "kernels/quantized_rows.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

constexpr int kBlock = static_cast<int>(kBlockValues);

struct Rounded {
  int8_t values[kBlock];
  float scale;
  int32_t sum;
};

PENSTOCK_INLINE void round_block(const float* x, Rounded& to) {
  float top = 0, poison = 0;  // poison: NaN where a value is not finite, else 0
#pragma omp simd reduction(max : top) reduction(+ : poison)
  for (int i = 0; i < kBlock; ++i) {
    const float size = x[i] < 0 ? -x[i] : x[i];
    top = size > top ? size : top;
    poison += x[i] * 0.0f;
  }
  const bool any = top > 1e-30f;
  const float inverse = any ? 127.0f / top : 0.0f;
  int32_t rounded[kBlock], sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < kBlock; ++i) {
    // Adding 1.5 · 2^23 rounds to the nearest integer, which then stands in the low bits.
    const auto bits = static_cast<uint32_t>(std::bit_cast<int32_t>(x[i] * inverse + 12582912.0f) - 0x4B400000);
    rounded[i] = static_cast<int32_t>(bits << 24) >> 24;  // the low byte, whatever a value was that is not finite
    sum += rounded[i];
  }
  for (int i = 0; i < kBlock; ++i) to.values[i] = static_cast<int8_t>(rounded[i]);  // a loop of its own: gcc 12 has no vectors of 64 bytes for both
  to.scale = (any ? top / 127.0f : 0.0f) + poison;
  to.sum = sum;
}

PENSTOCK_CLONES void round_blocks(const float* x, int64_t count, Rounded* to) {
  for (int64_t b = 0; b < count; ++b) round_block(x + b * kBlock, to[b]);
}

// More than half of the sum of squares is one value's.
PENSTOCK_CLONES bool peaks(const float* x, int64_t columns) {
  float top = 0, sum = 0;
#pragma omp simd reduction(max : top) reduction(+ : sum)
  for (int64_t i = 0; i < columns; ++i) {
    const float square = x[i] * x[i];
    top = square > top ? square : top;
    sum += square;
  }
  return top > 0.5f * sum;
}

template <typename T>
std::unique_ptr<T[]> unset(int64_t count) {
  return std::make_unique_for_overwrite<T[]>(static_cast<size_t>(count));
}

}  // namespace

QuantizedRows::QuantizedRows(int64_t rows, int64_t columns, GroupRows group_rows)
    : rows_(rows),
      columns_(columns),
      blocks_(row_blocks(columns)),
      group_rows_(group_rows),
      values_(make_lines<int8_t>(rows * blocks_ * kBlockValues)),
      scales_(unset<float>(rows * blocks_)),
      sums_(unset<float>(rows * blocks_)),
      corrections4_(unset<int32_t>(rows * blocks_)),
      corrections8_(unset<int32_t>(rows * blocks_)) {}

QuantizedRows::Place QuantizedRows::place_of(int64_t row) const {
  int64_t first = row / kRowBlock * kRowBlock;
  for (;;) {
    const RowGrouping group = group_rows_(std::min(rows_ - first, kRowBlock));
    if (row < first + group.count) return {first, group};
    first += group.count;
  }
}

RowGroup QuantizedRows::group_at(int64_t row) const {
  const int64_t at = row * blocks_;
  return {place_of(row).group.count, values_.get() + at * kBlockValues, scales_.get() + at, sums_.get() + at, corrections4_.get() + at, corrections8_.get() + at};
}

void QuantizedRows::set(int64_t first, int64_t count, const float* x) {
  constexpr int64_t kAtOnce = 16;
  Rounded rounded[kAtOnce];
  for (int64_t r = first; r < first + count; ++r, x += columns_) {
    const auto [group_first, group] = place_of(r);
    const int64_t start = group_first * blocks_, within = r - group_first, width = group.count;
    for (int64_t b = 0; b < blocks_; b += kAtOnce) {
      const int64_t some = std::min(kAtOnce, blocks_ - b), whole = std::min(some, columns_ / kBlockValues - b);
      round_blocks(x + b * kBlockValues, whole, rounded);
      if (whole < some) {
        float filled[kBlock] = {};
        std::copy(x + (b + whole) * kBlockValues, x + columns_, filled);
        round_blocks(filled, 1, rounded + whole);
      }
      for (int64_t i = 0; i < some; ++i) {
        const int64_t at = start + (b + i) * width + within;
        scales_[static_cast<size_t>(at)] = rounded[i].scale;
        sums_[static_cast<size_t>(at)] = rounded[i].scale * static_cast<float>(rounded[i].sum);
        corrections4_[static_cast<size_t>(at)] = -8 * rounded[i].sum;
        corrections8_[static_cast<size_t>(at)] = -128 * rounded[i].sum;
        int8_t* block = values_.get() + (start + (b + i) * width) * kBlockValues;
        if (group.interleaved) {
          for (int64_t g = 0; g < kBlockValues / 4; ++g) std::memcpy(block + (g * width + within) * 4, rounded[i].values + g * 4, 4);
        } else {
          std::memcpy(block + within * kBlockValues, rounded[i].values, kBlockValues);
        }
      }
    }
  }
}

bool has_peak(const float* x, int64_t columns) { return peaks(x, columns); }

void rounding_rest(const float* x, int64_t columns, float* rest) {
  for (int64_t first = 0; first < columns; first += kBlock) {
    const int64_t count = std::min<int64_t>(kBlock, columns - first);
    float filled[kBlock] = {};
    std::copy(x + first, x + first + count, filled);
    Rounded rounded;
    round_blocks(filled, 1, &rounded);
    for (int64_t i = 0; i < count; ++i) rest[first + i] = filled[i] - rounded.scale * static_cast<float>(rounded.values[i]);
  }
}

}  // namespace penstock::kernels
