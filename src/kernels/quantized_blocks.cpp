#include "kernels/quantized_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

constexpr int kBlock = static_cast<int>(kBlockValues);

// Rounds to the nearest integer; exact for |x| < 2^22.
PENSTOCK_INLINE float rounded(float x) { return (x + 12582912.0f) - 12582912.0f; }
PENSTOCK_INLINE float clamped(float x, float low, float high) { return x < low ? low : (x > high ? high : x); }

// 0, or NaN where a value is not finite.
PENSTOCK_INLINE float poison(const float* x) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < kBlock; ++i) sum += x[i] * 0.0f;
  return sum;
}

PENSTOCK_CLONES void to_int8(const float* x, std::byte* block) {
  float top = 0;
#pragma omp simd reduction(max : top)
  for (int i = 0; i < kBlock; ++i) {
    const float size = x[i] < 0 ? -x[i] : x[i];
    top = size > top ? size : top;
  }
  const uint16_t scale = half_of(top / 127.0f + poison(x));
  const float stored = float_of(scale);
  const float inverse = stored > 0 ? 1.0f / stored : 0.0f;
  std::memcpy(block, &scale, 2);
  auto* q = reinterpret_cast<int8_t*>(block + 2);
  for (int i = 0; i < kBlock; ++i) q[i] = static_cast<int8_t>(clamped(rounded(x[i] * inverse), -127.0f, 127.0f));
}

// How well integers q fit x = scale · q (+ minimum), and the best scale and minimum for them. Each error counts x² times: large weights matter more than small
// ones (docs/benchmarks.md).
struct Fit {
  float scale = 0;
  float minimum = 0;
  float gain = -1;  // by how much it lessens the error
};

// x ≈ scale · q with q = round(x · inverse) in −8 … 7, by least squares.
PENSTOCK_INLINE Fit fit_int4(const float* x, float inverse) {
  float xq = 0, qq = 0;
#pragma omp simd reduction(+ : xq, qq)
  for (int i = 0; i < kBlock; ++i) {
    const float q = clamped(rounded(x[i] * inverse), -8.0f, 7.0f), weight = x[i] * x[i];
    xq += weight * x[i] * q;
    qq += weight * q * q;
  }
  if (!(qq > 0)) return {};
  return {xq / qq, 0, xq * xq / qq};
}

PENSTOCK_CLONES Fit best_int4(const float* x) {
  float top = 0;
  for (int i = 0; i < kBlock; ++i) top = std::abs(x[i]) > std::abs(top) ? x[i] : top;
  Fit best;
  if (top == 0) return best;
  for (int step = -9; step <= 9; ++step) {  // the largest value near −8, so that the side with more room is used
    const Fit fit = fit_int4(x, (-8.0f + 0.2f * static_cast<float>(step)) / top);
    if (fit.gain > best.gain) best = fit;
  }
  return best;
}

// x ≈ scale · q + minimum with q = round((x − low) · inverse) in 0 … 15, by least squares.
PENSTOCK_INLINE Fit fit_int4_min(const float* x, float low, float inverse) {
  float n = 0, sx = 0, sq = 0, xq = 0, qq = 0;
#pragma omp simd reduction(+ : n, sx, sq, xq, qq)
  for (int i = 0; i < kBlock; ++i) {
    const float q = clamped(rounded((x[i] - low) * inverse), 0.0f, 15.0f), weight = x[i] * x[i];
    n += weight;
    sx += weight * x[i];
    sq += weight * q;
    xq += weight * x[i] * q;
    qq += weight * q * q;
  }
  const float spread = qq - sq * sq / n;
  if (!(spread > 0)) return {0, sx / n, 0};
  const float covariance = xq - sx * sq / n;
  const float scale = covariance / spread;
  return {scale, (sx - scale * sq) / n, covariance * covariance / spread};
}

PENSTOCK_CLONES Fit best_int4_min(const float* x) {
  float low = x[0], high = x[0];
  for (int i = 1; i < kBlock; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
  Fit best{0, low, -1};
  if (low == high) return best;
  for (int step = -6; step <= 6; ++step) {
    const Fit fit = fit_int4_min(x, low, (15.0f + 0.25f * static_cast<float>(step)) / (high - low));
    if (fit.gain > best.gain) best = fit;
  }
  return best;
}

// The nearest of `levels` integers from 0 on to (x − zero) · inverse, two in a byte.
void store_nibbles(const float* x, float zero, float inverse, float shift, std::byte* bytes) {
  uint8_t q[kBlock];
  for (int i = 0; i < kBlock; ++i) q[i] = static_cast<uint8_t>(clamped(rounded((x[i] - zero) * inverse) + shift, 0.0f, 15.0f));
  for (int i = 0; i < kBlock / 2; ++i) bytes[i] = static_cast<std::byte>(q[i] | (q[i + kBlock / 2] << 4));
}

void store_half(float value, std::byte* to) {
  const uint16_t half = half_of(value);
  std::memcpy(to, &half, 2);
}

float load_half(const std::byte* from) {
  uint16_t half = 0;
  std::memcpy(&half, from, 2);
  return float_of(half);
}

float inverse_of(float scale) { return scale != 0 ? 1.0f / scale : 0.0f; }

void quantize_block(BlockFormat format, const float* x, std::byte* block) {
  if (format == BlockFormat::kInt8) return to_int8(x, block);
  if (format == BlockFormat::kInt4) {
    store_half(best_int4(x).scale + poison(x), block);
    return store_nibbles(x, 0, inverse_of(load_half(block)), 8, block + 2);
  }
  const Fit fit = best_int4_min(x);
  store_half(fit.scale + poison(x), block);
  store_half(fit.minimum, block + 2);
  store_nibbles(x, load_half(block + 2), inverse_of(load_half(block)), 0, block + 4);
}

void dequantize_block(BlockFormat format, const std::byte* block, float* x) {
  const float scale = load_half(block);
  if (format == BlockFormat::kInt8) {
    for (int i = 0; i < kBlock; ++i) x[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
    return;
  }
  const bool has_minimum = format == BlockFormat::kInt4Min;
  const float zero = has_minimum ? load_half(block + 2) : -8.0f * scale;
  const std::byte* bytes = block + (has_minimum ? 4 : 2);
  for (int i = 0; i < kBlock / 2; ++i) {
    x[i] = scale * static_cast<float>(std::to_integer<int>(bytes[i] & std::byte{15})) + zero;
    x[i + kBlock / 2] = scale * static_cast<float>(std::to_integer<int>(bytes[i] >> 4)) + zero;
  }
}

}  // namespace

void quantize_row(BlockFormat format, const float* values, int64_t columns, std::byte* blocks) {
  for (int64_t first = 0; first < columns; first += kBlockValues, blocks += block_bytes(format)) {
    if (columns - first >= kBlockValues) {
      quantize_block(format, values + first, blocks);
      continue;
    }
    float filled[kBlock] = {};
    std::copy(values + first, values + columns, filled);
    quantize_block(format, filled, blocks);
  }
}

void dequantize_row(BlockFormat format, const std::byte* blocks, int64_t columns, float* values) {
  for (int64_t first = 0; first < columns; first += kBlockValues, blocks += block_bytes(format)) {
    float block[kBlock];
    dequantize_block(format, blocks, block);
    std::copy(block, block + std::min(kBlockValues, columns - first), values + first);
  }
}

uint16_t half_of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  uint32_t size = bits & 0x7fffffffu;
  if (size > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);  // NaN
  if (size >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to infinity
  if (size < 0x38800000u) {  // below 2^-14: adding 0.5, whose last place is a half's smallest step, rounds
    const float shifted = std::bit_cast<float>(size) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  size += 0xfffu + ((size >> 13) & 1u) - (112u << 23);
  return static_cast<uint16_t>(sign | (size >> 13));
}

float float_of(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, rest = static_cast<uint32_t>(half & 0x7fffu) << 13;
  if ((half & 0x7c00u) == 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u | rest);
  const float size = std::bit_cast<float>(rest) * 0x1p112f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(size));
}

}  // namespace penstock::kernels
