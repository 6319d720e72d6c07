#include "kernels/float_tiles.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define PENSTOCK_AVX2 __attribute__((target("avx2,fma")))
#define PENSTOCK_AVX2_INLINE inline __attribute__((always_inline, target("avx2,fma")))

namespace penstock::kernels {
namespace {

constexpr int64_t kLane = 8;
constexpr int kRowsAtOnce = 3;  // three rows times four weights: twelve of the sixteen registers hold sums

PENSTOCK_AVX2_INLINE __m256 lane_at(const float* weights) { return _mm256_loadu_ps(weights); }

PENSTOCK_AVX2_INLINE __m256 lane_at(const Bfloat16* weights) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

// The sums of the lanes of each.
PENSTOCK_AVX2_INLINE __m128 sums_of(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

template <typename W, int kRows, int kWeights>
PENSTOCK_AVX2 void add_some(const FloatTile<W>& t) {
  __m256 sums[kRows][kWeights];
#pragma GCC unroll 3
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int j = 0; j < kWeights; ++j) sums[m][j] = _mm256_setzero_ps();
  }
  const int64_t whole = t.columns - t.columns % kLane;
  for (int64_t k = 0; k < whole; k += kLane) {
    __m256 x[kRows];
#pragma GCC unroll 3
    for (int m = 0; m < kRows; ++m) x[m] = _mm256_loadu_ps(t.x + m * t.x_row + k);
#pragma GCC unroll 4
    for (int j = 0; j < kWeights; ++j) {
      const __m256 w = lane_at(t.w + j * t.w_row + k);
#pragma GCC unroll 3
      for (int m = 0; m < kRows; ++m) sums[m][j] = _mm256_fmadd_ps(x[m], w, sums[m][j]);
    }
  }
#pragma GCC unroll 3
  for (int m = 0; m < kRows; ++m) {
    float* y = t.y + m * t.y_row;
    if constexpr (kWeights == kWeightRows) {
      _mm_storeu_ps(y, _mm_add_ps(_mm_loadu_ps(y), sums_of(sums[m][0], sums[m][1], sums[m][2], sums[m][3])));
    } else {
      const __m256 zero = _mm256_setzero_ps();
      *y += _mm_cvtss_f32(sums_of(sums[m][0], zero, zero, zero));
    }
    for (int j = 0; j < kWeights; ++j) {
      for (int64_t k = whole; k < t.columns; ++k) y[j] = __builtin_fmaf(t.x[m * t.x_row + k], value_of(t.w[j * t.w_row + k]), y[j]);
    }
  }
}

template <typename W, int kRows>
void add_rows(const FloatTile<W>& t, int weights) {
  if (weights == kWeightRows) return add_some<W, kRows, kWeightRows>(t);
  for (int j = 0; j < weights; ++j) add_some<W, kRows, 1>(t.with_weight(j));
}

template <typename W>
void add(const FloatTile<W>& t, int rows, int weights) {
  switch (rows) {
    case 3: return add_rows<W, 3>(t, weights);
    case 2: return add_rows<W, 2>(t, weights);
    default: return add_rows<W, 1>(t, weights);
  }
}

}  // namespace

const FloatKernels& avx2_float_kernels() {
  static const FloatKernels kernels{"AVX2", kRowsAtOnce, add<float>, add<Bfloat16>};
  return kernels;
}

}  // namespace penstock::kernels

#else

namespace penstock::kernels {
const FloatKernels& avx2_float_kernels() { return plain_float_kernels(); }
}  // namespace penstock::kernels

#endif
