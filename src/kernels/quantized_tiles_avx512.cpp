#include "kernels/quantized_tiles.h"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 sees it in its own intrinsics (bug 105593)
#endif

#include <immintrin.h>

#include <cstring>

#include "kernels/quantized_weight.h"

#define PENSTOCK_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define PENSTOCK_AVX512_INLINE inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512vnni")))

namespace penstock::kernels {
namespace {

// The same four activations for all sixteen rows.
PENSTOCK_AVX512_INLINE __m512i four_of_all(const int8_t* values) {
  int32_t four = 0;
  std::memcpy(&four, values, 4);
  return _mm512_set1_epi32(four);
}

PENSTOCK_AVX512_INLINE __m512 halves(const uint16_t* sixteen) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sixteen)));
}

PENSTOCK_AVX512_INLINE __m512i bytes_at(const uint8_t* from) { return _mm512_loadu_si512(from); }

// vpdpbusd wants its first operand unsigned: int8 weights are read as w + 128, and what that adds is taken off first.
template <int kCount, BlockFormat kFormat>
PENSTOCK_AVX512 void rows(const TileProduct& t, const RowGroup& x, float* y) {
  constexpr bool kIsInt8 = kFormat == BlockFormat::kInt8;
  constexpr int kGroups = kIsInt8 ? 8 : 4;
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80)), low_bits = _mm512_set1_epi8(15);
  const int64_t blocks = t.x->blocks();
  const int8_t* values = x.values;
  const int32_t* corrections = kIsInt8 ? x.corrections8 : x.corrections4;
  __m512 total[kCount];
#pragma GCC unroll 12
  for (int m = 0; m < kCount; ++m) total[m] = _mm512_setzero_ps();
  const uint8_t* block = t.quants;
  for (int64_t b = 0; b < blocks; ++b, block += kGroups * 64, values += kCount * kBlockValues) {
    __m512i products[kCount];
#pragma GCC unroll 12
    for (int m = 0; m < kCount; ++m) {
      products[m] = kFormat == BlockFormat::kInt4Min ? _mm512_setzero_si512() : _mm512_set1_epi32(corrections[b * kCount + m]);
    }
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) {
      if constexpr (kCount <= kFewRows) _mm_prefetch(reinterpret_cast<const char*>(block + g * 64) + kBytesAhead, _MM_HINT_T0);
      const __m512i w = bytes_at(block + g * 64);
      const __m512i low = kIsInt8 ? _mm512_xor_si512(w, flip) : _mm512_and_si512(w, low_bits);
      const __m512i high = _mm512_and_si512(_mm512_srli_epi16(w, 4), low_bits);
#pragma GCC unroll 12
      for (int m = 0; m < kCount; ++m) {
        const int8_t* a = values + (g * kCount + m) * 4;
        products[m] = _mm512_dpbusd_epi32(products[m], low, four_of_all(a));
        if constexpr (!kIsInt8) products[m] = _mm512_dpbusd_epi32(products[m], high, four_of_all(a + 4 * kCount * 4));
      }
    }
    const __m512 weight_scales = halves(t.scales + b * kTileRows);
#pragma GCC unroll 12
    for (int m = 0; m < kCount; ++m) {
      total[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[m]), _mm512_mul_ps(weight_scales, _mm512_set1_ps(x.scales[b * kCount + m])), total[m]);
    }
    if constexpr (kFormat == BlockFormat::kInt4Min) {
      const __m512 minima = halves(t.minima + b * kTileRows);
#pragma GCC unroll 12
      for (int m = 0; m < kCount; ++m) total[m] = _mm512_fmadd_ps(minima, _mm512_set1_ps(x.sums[b * kCount + m]), total[m]);
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < kCount; ++m) _mm512_storeu_ps(y + m * t.stride, total[m]);
}

template <BlockFormat kFormat>
void multiply(const TileProduct& t) {
  float* y = t.y;
  for (int64_t m = t.first; m < t.end;) {
    const RowGroup x = t.x->group_at(m);
    switch (x.count) {
      case 12: rows<12, kFormat>(t, x, y); break;
      case 8: rows<8, kFormat>(t, x, y); break;
      case 4: rows<4, kFormat>(t, x, y); break;
      case 3: rows<3, kFormat>(t, x, y); break;
      case 2: rows<2, kFormat>(t, x, y); break;
      default: rows<1, kFormat>(t, x, y); break;
    }
    m += x.count;
    y += x.count * t.stride;
  }
}

// vpdpbusd takes 4 to 5 cycles and two begin in each: 12 chains of sums keep them busy.
RowGrouping group_rows(int64_t left) {
  for (const int count : {12, 8, 4}) {
    if (left >= count) return {count};
  }
  return {static_cast<int>(left)};
}

}  // namespace

const TileKernels& avx512_tile_kernels() {
  static const TileKernels kernels{"AVX-512 VNNI", group_rows, {multiply<BlockFormat::kInt8>, multiply<BlockFormat::kInt4>, multiply<BlockFormat::kInt4Min>}};
  return kernels;
}

}  // namespace penstock::kernels

#else

namespace penstock::kernels {
const TileKernels& avx512_tile_kernels() { return plain_tile_kernels(); }
}  // namespace penstock::kernels

#endif
