#include "kernels/quantized_tiles.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#include "kernels/quantized_weight.h"

#define PENSTOCK_AVX2 __attribute__((target("avx2,fma,f16c")))
#define PENSTOCK_AVX2_INLINE inline __attribute__((always_inline, target("avx2,fma,f16c")))

namespace penstock::kernels {
namespace {

constexpr int64_t kHalf = 8;  // rows of a tile in one register

// The same four activations for all eight rows.
PENSTOCK_AVX2_INLINE __m256i four_of_all(const int8_t* values) {
  int32_t four = 0;
  std::memcpy(&four, values, 4);
  return _mm256_set1_epi32(four);
}

PENSTOCK_AVX2_INLINE __m256 halves(const uint16_t* eight) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(eight)));
}

template <int kCount>
PENSTOCK_AVX2_INLINE void ask_ahead(const uint8_t* line) {
  if constexpr (kCount <= kFewRows) _mm_prefetch(reinterpret_cast<const char*>(line) + kBytesAhead, _MM_HINT_T0);
}

PENSTOCK_AVX2_INLINE __m256i bytes_at(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

// gcc would load what both halves of a tile need once, and then has too few registers to keep it.
PENSTOCK_AVX2_INLINE void load_again() { __asm__ volatile("" ::: "memory"); }

// gcc would turn a chain of integer sums into a tree, all of whose leaves it then keeps in memory.
PENSTOCK_AVX2_INLINE __m256i in_order(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

// Of `kCount` rows, the sums of both halves of the tile.
template <int kCount>
struct Sums {
  __m256 of[kCount][2];

  PENSTOCK_AVX2_INLINE Sums() {
#pragma GCC unroll 4
    for (int m = 0; m < kCount; ++m) of[m][0] = of[m][1] = _mm256_setzero_ps();
  }
  // Adds the integer products of a block, scaled.
  PENSTOCK_AVX2_INLINE void add(int m, int half, __m256i products, __m256 weight_scales, float scale) {
    of[m][half] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), _mm256_mul_ps(weight_scales, _mm256_set1_ps(scale)), of[m][half]);
  }
  PENSTOCK_AVX2_INLINE void store(float* y, int64_t stride) const {
#pragma GCC unroll 4
    for (int m = 0; m < kCount; ++m) {
      _mm256_storeu_ps(y + m * stride, of[m][0]);
      _mm256_storeu_ps(y + m * stride + kHalf, of[m][1]);
    }
  }
};

// vpmaddubsw wants an unsigned operand: |w| times a with w's sign. Its sums of two are at most 2 · 128 · 127 and fit into 16 bits.
template <int kCount>
PENSTOCK_AVX2 void int8_rows(const TileProduct& t, const RowGroup& x, float* y) {
  const __m256i ones = _mm256_set1_epi16(1);
  Sums<kCount> sums;
  const uint8_t* block = t.quants;
  const int8_t* values = x.values;
  for (int64_t b = 0; b < t.x->blocks(); ++b, block += kTileRows * kBlockValues, values += kCount * kBlockValues) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      load_again();
      __m256i products[kCount];
#pragma GCC unroll 4
      for (int m = 0; m < kCount; ++m) products[m] = _mm256_setzero_si256();
#pragma GCC unroll 8
      for (int g = 0; g < 8; ++g) {
        if (half == 0) ask_ahead<kCount>(block + g * 64);
        const __m256i w = bytes_at(block + g * 64 + half * 32), size = _mm256_abs_epi8(w);
#pragma GCC unroll 4
        for (int m = 0; m < kCount; ++m) {
          const __m256i a = _mm256_sign_epi8(four_of_all(values + (g * kCount + m) * 4), w);
          products[m] = in_order(_mm256_add_epi32(products[m], _mm256_madd_epi16(_mm256_maddubs_epi16(size, a), ones)));
        }
      }
      const __m256 scales = halves(t.scales + b * kTileRows + half * kHalf);
#pragma GCC unroll 4
      for (int m = 0; m < kCount; ++m) sums.add(m, half, products[m], scales, x.scales[b * kCount + m]);
    }
  }
  sums.store(y, t.stride);
}

// Sums of 16 products, each at most 15 · 127, fit into 16 bits: a whole block is summed before it is widened.
template <int kCount, bool kHasMinimum>
PENSTOCK_AVX2 void int4_rows(const TileProduct& t, const RowGroup& x, float* y) {
  const __m256i ones = _mm256_set1_epi16(1), low_bits = _mm256_set1_epi8(15);
  Sums<kCount> sums;
  const uint8_t* block = t.quants;
  const int8_t* values = x.values;
  for (int64_t b = 0; b < t.x->blocks(); ++b, block += kTileRows * kBlockValues / 2, values += kCount * kBlockValues) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      load_again();
      __m256i products[kCount];
#pragma GCC unroll 4
      for (int m = 0; m < kCount; ++m) products[m] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        if (half == 0) ask_ahead<kCount>(block + g * 64);
        const __m256i w = bytes_at(block + g * 64 + half * 32);
        const __m256i low = _mm256_and_si256(w, low_bits), high = _mm256_and_si256(_mm256_srli_epi16(w, 4), low_bits);
#pragma GCC unroll 4
        for (int m = 0; m < kCount; ++m) {
          const int8_t* a = values + (g * kCount + m) * 4;
          products[m] = in_order(_mm256_add_epi16(products[m], _mm256_maddubs_epi16(low, four_of_all(a))));
          products[m] = in_order(_mm256_add_epi16(products[m], _mm256_maddubs_epi16(high, four_of_all(a + 4 * kCount * 4))));
        }
      }
      const __m256 scales = halves(t.scales + b * kTileRows + half * kHalf);
#pragma GCC unroll 4
      for (int m = 0; m < kCount; ++m) {
        __m256i wide = _mm256_madd_epi16(products[m], ones);
        if constexpr (!kHasMinimum) wide = _mm256_add_epi32(wide, _mm256_set1_epi32(x.corrections4[b * kCount + m]));
        sums.add(m, half, wide, scales, x.scales[b * kCount + m]);
      }
      if constexpr (kHasMinimum) {
        const __m256 minima = halves(t.minima + b * kTileRows + half * kHalf);
#pragma GCC unroll 4
        for (int m = 0; m < kCount; ++m) sums.of[m][half] = _mm256_fmadd_ps(minima, _mm256_set1_ps(x.sums[b * kCount + m]), sums.of[m][half]);
      }
    }
  }
  sums.store(y, t.stride);
}

template <int kCount, BlockFormat kFormat>
inline void some_rows(const TileProduct& t, const RowGroup& x, float* y) {
  if constexpr (kFormat == BlockFormat::kInt8) int8_rows<kCount>(t, x, y);
  else int4_rows<kCount, kFormat == BlockFormat::kInt4Min>(t, x, y);
}

template <BlockFormat kFormat>
void multiply(const TileProduct& t) {
  float* y = t.y;
  for (int64_t m = t.first; m < t.end;) {
    const RowGroup x = t.x->group_at(m);
    switch (x.count) {
      case 4: some_rows<4, kFormat>(t, x, y); break;
      case 3: some_rows<3, kFormat>(t, x, y); break;
      case 2: some_rows<2, kFormat>(t, x, y); break;
      default: some_rows<1, kFormat>(t, x, y); break;
    }
    m += x.count;
    y += x.count * t.stride;
  }
}

// More would not leave registers for their sums.
RowGrouping group_rows(int64_t left) { return {static_cast<int>(std::min<int64_t>(left, 4))}; }

}  // namespace

const TileKernels& avx2_tile_kernels() {
  static const TileKernels kernels{"AVX2", group_rows, {multiply<BlockFormat::kInt8>, multiply<BlockFormat::kInt4>, multiply<BlockFormat::kInt4Min>}};
  return kernels;
}

}  // namespace penstock::kernels

#else

namespace penstock::kernels {
const TileKernels& avx2_tile_kernels() { return plain_tile_kernels(); }
}  // namespace penstock::kernels

#endif
