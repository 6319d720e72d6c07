#include "kernels/float_tiles.h"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 sees both in its own intrinsics (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#define PENSTOCK_AVX512 __attribute__((target("avx512f")))
#define PENSTOCK_AVX512_INLINE inline __attribute__((always_inline, target("avx512f")))

namespace penstock::kernels {
namespace {

constexpr int64_t kLane = 16;
constexpr int kRowsAtOnce = 6;  // six rows times four weights: twenty-four of the thirty-two registers hold sums

PENSTOCK_AVX512_INLINE __m512 lane_at(const float* weights) { return _mm512_loadu_ps(weights); }

PENSTOCK_AVX512_INLINE __m512 lane_at(const Bfloat16* weights) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

// The sums of the lanes of each.
PENSTOCK_AVX512_INLINE __m256 halved(__m512 sum) {
  return _mm256_add_ps(_mm512_castps512_ps256(sum), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(sum), 1)));
}
PENSTOCK_AVX512_INLINE __m128 sums_of(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(halved(a), halved(b)), _mm256_hadd_ps(halved(c), halved(d)));
  return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}

template <typename W, int kRows, int kWeights>
PENSTOCK_AVX512 void add_some(const FloatTile<W>& t) {
  __m512 sums[kRows][kWeights];
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int j = 0; j < kWeights; ++j) sums[m][j] = _mm512_setzero_ps();
  }
  const int64_t whole = t.columns - t.columns % kLane;
  for (int64_t k = 0; k < whole; k += kLane) {
    __m512 x[kRows];
#pragma GCC unroll 6
    for (int m = 0; m < kRows; ++m) x[m] = _mm512_loadu_ps(t.x + m * t.x_row + k);
#pragma GCC unroll 4
    for (int j = 0; j < kWeights; ++j) {
      const __m512 w = lane_at(t.w + j * t.w_row + k);
#pragma GCC unroll 6
      for (int m = 0; m < kRows; ++m) sums[m][j] = _mm512_fmadd_ps(x[m], w, sums[m][j]);
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < kRows; ++m) {
    float* y = t.y + m * t.y_row;
    if constexpr (kWeights == kWeightRows) {
      _mm_storeu_ps(y, _mm_add_ps(_mm_loadu_ps(y), sums_of(sums[m][0], sums[m][1], sums[m][2], sums[m][3])));
    } else {
      const __m512 zero = _mm512_setzero_ps();
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
    case 6: return add_rows<W, 6>(t, weights);
    case 5: return add_rows<W, 5>(t, weights);
    case 4: return add_rows<W, 4>(t, weights);
    case 3: return add_rows<W, 3>(t, weights);
    case 2: return add_rows<W, 2>(t, weights);
    default: return add_rows<W, 1>(t, weights);
  }
}

}  // namespace

const FloatKernels& avx512_float_kernels() {
  static const FloatKernels kernels{"AVX-512", kRowsAtOnce, add<float>, add<Bfloat16>};
  return kernels;
}

}  // namespace penstock::kernels

#else

namespace penstock::kernels {
const FloatKernels& avx512_float_kernels() { return plain_float_kernels(); }
}  // namespace penstock::kernels

#endif
