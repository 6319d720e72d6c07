#include "kernels/quantized_tiles.h"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 sees it in its own intrinsics (bug 105593)
#endif

#include <immintrin.h>

#include <algorithm>

#include "kernels/amx.h"
#include "kernels/quantized_weight.h"

#define PENSTOCK_AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,amx-tile,amx-int8")))
#define PENSTOCK_AMX_INLINE inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512vnni,amx-tile,amx-int8")))

namespace penstock::kernels {
namespace {

constexpr int kRows = 16;                                 // of activations that are taken at once, and of a tile of W
constexpr int64_t kTileBlock = kTileRows * kBlockValues;  // bytes of a block of 16 rows
constexpr int64_t kBlocksAtOnce = 4;                      // whose products follow each other, while the next are asked for
constexpr int64_t kWidened = 16;                          // blocks of 4 bits that are made int8 at once
static_assert(kRows == kTileRows && QuantizedRows::kRowBlock % kRows == 0);

// Register 0: sums, 16 x 16 int32. 1: a block of 16 rows of activations, 32 bytes each. 2: a block of a tile of W, 4 columns of its 16 rows in a line.
constexpr TileShapes kShapes{.line_bytes = {64, kBlockValues, 64}, .lines = {kRows, kRows, kBlockValues / 4}};

PENSTOCK_AMX_INLINE __m512 halves(const uint16_t* sixteen) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(sixteen)));
}

// total += products, with the scales of block `b`, and its minima.
template <BlockFormat kFormat>
PENSTOCK_AMX_INLINE void add_block(const TileProduct& t, const RowGroup& x, int64_t b, const int32_t* products, __m512* total) {
  const __m512 weight_scales = halves(t.scales + b * kTileRows);
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) {
    const __m512 scales = _mm512_mul_ps(weight_scales, _mm512_set1_ps(x.scales[b * kRows + m]));
    total[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_load_si512(products + m * kTileRows)), scales, total[m]);
  }
  if constexpr (kFormat == BlockFormat::kInt4Min) {
    const __m512 minima = halves(t.minima + b * kTileRows);
#pragma GCC unroll 16
    for (int m = 0; m < kRows; ++m) total[m] = _mm512_fmadd_ps(minima, _mm512_set1_ps(x.sums[b * kRows + m]), total[m]);
  }
}

// Blocks of 4 bits, with the 8 groups of columns of each one after the other.
PENSTOCK_AMX_INLINE void widen_blocks(const uint8_t* from, int64_t count, int8_t zero_point, uint8_t* to) {
  const __m512i low_bits = _mm512_set1_epi8(15), zero = _mm512_set1_epi8(zero_point);
  for (int64_t b = 0; b < count; ++b, from += kTileBlock / 2, to += kTileBlock) {
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) {
      const __m512i w = _mm512_loadu_si512(from + g * 64);
      _mm512_store_si512(to + g * 64, _mm512_sub_epi8(_mm512_and_si512(w, low_bits), zero));
      _mm512_store_si512(to + (g + 4) * 64, _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(w, 4), low_bits), zero));
    }
  }
  written();
}

PENSTOCK_AMX_INLINE void ask_for(const void* block) {
#pragma GCC unroll 8
  for (int line = 0; line < kTileBlock; line += 64) _mm_prefetch(static_cast<const char*>(block) + line, _MM_HINT_T0);
}

// Products of `count` blocks with their sums within a block. What follows is asked for.
template <BlockFormat kFormat>
PENSTOCK_AMX_INLINE void multiply_blocks(const int8_t* values, const uint8_t* quants, int64_t count, int32_t (*products)[kRows * kTileRows]) {
  for (int64_t i = 0; i < count; ++i, values += kTileBlock, quants += kTileBlock) {
    ask_for(values + kBlocksAtOnce * kTileBlock);
    if constexpr (kFormat == BlockFormat::kInt8) ask_for(quants + kBlocksAtOnce * kTileBlock);
    _tile_zero(0);
    _tile_loadd(1, values, kBlockValues);
    _tile_loadd(2, quants, 64);
    _tile_dpbssd(0, 1, 2);
    _tile_stored(0, products[i], 64);
  }
}

// sums [16 of activations, 16 of W] += the products of blocks [first, end), whose values of W are `quants`.
template <BlockFormat kFormat>
PENSTOCK_AMX_INLINE void add_blocks(const TileProduct& t, const RowGroup& x, const uint8_t* quants, int64_t first, int64_t end, float* sums) {
  alignas(64) int32_t products[kBlocksAtOnce][kRows * kTileRows];
  __m512 total[kRows];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) total[m] = _mm512_load_ps(sums + m * kTileRows);
  for (int64_t b = first; b < end; b += kBlocksAtOnce) {
    const int64_t count = std::min(kBlocksAtOnce, end - b);
    multiply_blocks<kFormat>(x.values + b * kTileBlock, quants + (b - first) * kTileBlock, count, products);
    for (int64_t i = 0; i < count; ++i) add_block<kFormat>(t, x, b + i, products[i], total);
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; ++m) _mm512_store_ps(sums + m * kTileRows, total[m]);
}

// Whole groups of rows.
template <BlockFormat kFormat>
PENSTOCK_AMX void multiply_groups(const TileProduct& t, int64_t groups) {
  constexpr bool kIsInt8 = kFormat == BlockFormat::kInt8;
  alignas(64) uint8_t wide[kIsInt8 ? 1 : kWidened * kTileBlock];
  alignas(64) float sums[QuantizedRows::kRowBlock * kTileRows];
  std::fill(sums, sums + groups * kRows * kTileRows, 0.0f);
  _tile_loadconfig(&kShapes);
  const int64_t blocks = t.x->blocks(), at_once = kIsInt8 ? blocks : kWidened;
  for (int64_t first = 0; first < blocks; first += at_once) {
    const int64_t end = std::min(blocks, first + at_once);
    if constexpr (!kIsInt8) widen_blocks(t.quants + first * kTileBlock / 2, end - first, kFormat == BlockFormat::kInt4 ? 8 : 0, wide);
    const uint8_t* quants = kIsInt8 ? t.quants : wide;
    for (int64_t g = 0; g < groups; ++g) add_blocks<kFormat>(t, t.x->group_at(t.first + g * kRows), quants, first, end, sums + g * kRows * kTileRows);
  }
  _tile_release();
  for (int64_t m = 0; m < groups * kRows; ++m) std::copy(sums + m * kTileRows, sums + (m + 1) * kTileRows, t.y + m * t.stride);
}

template <BlockFormat kFormat>
void multiply(const TileProduct& t) {
  const int64_t groups = (t.end - t.first) / kRows;
  if (groups > 0) multiply_groups<kFormat>(t, groups);
  TileProduct rest = t;
  rest.first += groups * kRows;
  rest.y += groups * kRows * t.stride;
  if (rest.first < rest.end) avx512_tile_kernels().multiply[static_cast<int>(kFormat)](rest);
}

RowGrouping group_rows(int64_t left) { return left >= kRows ? RowGrouping{kRows, false} : avx512_tile_kernels().group_rows(left); }

}  // namespace

const TileKernels& amx_tile_kernels() {
  static const TileKernels kernels{"AMX", group_rows, {multiply<BlockFormat::kInt8>, multiply<BlockFormat::kInt4>, multiply<BlockFormat::kInt4Min>}};
  return kernels;
}

}  // namespace penstock::kernels

#else

namespace penstock::kernels {
const TileKernels& amx_tile_kernels() { return plain_tile_kernels(); }
}  // namespace penstock::kernels

#endif
