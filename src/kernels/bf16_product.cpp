#include "kernels/bf16_product.h"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 sees both in its own intrinsics (bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>

#include "kernels/amx.h"
#include "kernels/cache_lines.h"
#include "kernels/parallel.h"

#define PENSTOCK_AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")))
#define PENSTOCK_AMX_INLINE inline __attribute__((always_inline, target("avx512f,avx512bw,avx512vl,avx512bf16,amx-tile,amx-bf16")))

namespace penstock::kernels {
namespace {

constexpr int64_t kGroup = 16;                      // rows of x, and of W, in one register
constexpr int64_t kDepth = 32;                      // columns in one register
constexpr int64_t kTile = kGroup * kDepth;          // values of one register
constexpr int64_t kWeightBlock = 2 * kGroup;        // rows of W that are multiplied at once, with as many of x
constexpr int64_t kPanelBytes = int64_t{1} << 20;   // of W at most, and
constexpr int64_t kPanelBlocks = 8;                 // so many blocks stay in the second cache while all of x passes by
constexpr int64_t kBlocksPerTask = 4;               // if x passes by at all

// Registers 0 to 3: sums, a line for each of 16 rows of W; 4 and 5: rows of W; 6 and 7: a line for each of 16 pairs of columns of x.
constexpr TileShapes kShapes{.line_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .lines = {16, 16, 16, 16, 16, 16, 16, 16}};

// 16 x 16 words, in four steps: words, pairs of words, then quarters of registers twice.
PENSTOCK_AMX_INLINE void transpose(__m512i* r) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  constexpr int kEven = 0x88, kOdd = 0xdd;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], kEven);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], kOdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], kEven);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], kOdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], kEven);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], kOdd);
  }
}

// x in groups of 16 rows; of a group, for each 32 columns two registers full, what bfloat16 has of x and what it lacks: lines of a pair of columns of 16 rows.
class SplitRows {
 public:
  SplitRows(const float* x, int64_t rows, int64_t columns) : x_(x), rows_(rows), columns_(columns), steps_((columns + kDepth - 1) / kDepth), parts_(make_lines<Bfloat16>(groups() * stride())) {}

  [[nodiscard]] int64_t groups() const { return (rows_ + kGroup - 1) / kGroup; }
  [[nodiscard]] int64_t stride() const { return steps_ * 2 * kTile; }  // from a group to the next
  [[nodiscard]] const Bfloat16* group(int64_t index) const { return parts_.get() + index * stride(); }

  PENSTOCK_AMX void split_group(int64_t index) {
    Bfloat16* to = parts_.get() + index * stride();
    const int64_t first = index * kGroup;
    for (int64_t column = 0; column < columns_; column += kDepth, to += 2 * kTile) {
      const auto present = static_cast<uint32_t>((uint64_t{1} << std::min(kDepth, columns_ - column)) - 1);
      __m512i upper[kGroup], lower[kGroup];
#pragma GCC unroll 16
      for (int64_t m = 0; m < kGroup; ++m) split(x_ + (first + m) * columns_ + column, first + m < rows_ ? present : 0, upper[m], lower[m]);
      transpose(upper);
      transpose(lower);
#pragma GCC unroll 16
      for (int64_t m = 0; m < kGroup; ++m) {
        _mm512_store_si512(to + m * kDepth, upper[m]);
        _mm512_store_si512(to + kTile + m * kDepth, lower[m]);
      }
    }
  }

 private:
  static PENSTOCK_AMX_INLINE __m512 floats_of(__m256i halves) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16)); }

  static PENSTOCK_AMX_INLINE void split(const float* x, uint32_t present, __m512i& upper, __m512i& lower) {
    const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present), x), high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> 16), x + 16);
    upper = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    const __m512 low_rest = _mm512_sub_ps(low, floats_of(_mm512_castsi512_si256(upper))), high_rest = _mm512_sub_ps(high, floats_of(_mm512_extracti64x4_epi64(upper, 1)));
    lower = (__m512i)_mm512_cvtne2ps_pbh(high_rest, low_rest);
  }

  const float* x_;
  const int64_t rows_, columns_, steps_;
  const Lines<Bfloat16> parts_;
};

// Sixteen rows of W at one step of columns, as a register takes them.
struct WeightLines {
  const Bfloat16* at;
  int64_t stride;  // bytes
};

struct Product {
  const Bfloat16* weight;
  const SplitRows& x;
  float* y;
  const ProductSizes& sizes;

  // What W does not have is zero, for which it is copied: beyond its rows and columns there may be anything.
  [[nodiscard]] WeightLines lines(int64_t row, int64_t column, Bfloat16* copy) const {
    const int64_t rows = std::clamp<int64_t>(sizes.outputs - row, 0, kGroup), columns = std::min(kDepth, sizes.columns - column);
    const Bfloat16* from = weight + row * sizes.columns + column;
    if (rows == kGroup && columns == kDepth) return {from, sizes.columns * static_cast<int64_t>(sizeof(Bfloat16))};
    std::fill(copy, copy + kTile, Bfloat16{0});
    for (int64_t r = 0; r < rows; ++r) std::copy(from + r * sizes.columns, from + r * sizes.columns + columns, copy + r * kDepth);
    written();
    return {copy, kDepth * sizeof(Bfloat16)};
  }
};

// `sums`: a line for each of 16 rows of W, from row `output` on; those of y from `row` on are set.
PENSTOCK_AMX_INLINE void store(const Product& p, const float* sums, int64_t row, int64_t output) {
  __m512i lines[kGroup];
#pragma GCC unroll 16
  for (int64_t i = 0; i < kGroup; ++i) lines[i] = _mm512_load_si512(sums + i * kGroup);
  transpose(lines);
  const int64_t present = std::min(kGroup, p.sizes.outputs - output);
  if (present <= 0) return;
  const auto mask = static_cast<__mmask16>((1U << present) - 1);
  alignas(64) float rows[kGroup][kGroup];
#pragma GCC unroll 16
  for (int64_t m = 0; m < kGroup; ++m) _mm512_store_si512(rows[m], lines[m]);
  for (int64_t m = 0; m < std::min(kGroup, p.sizes.rows - row); ++m) _mm512_mask_storeu_ps(p.y + (row + m) * p.sizes.outputs + output, mask, _mm512_load_ps(rows[m]));
}

// 32 rows of W times one or two groups of rows of x.
template <bool kTwoGroups>
PENSTOCK_AMX void multiply_block(const Product& p, int64_t output, int64_t group) {
  alignas(64) float sums[4][kGroup * kGroup];
  alignas(64) Bfloat16 copies[2][kTile];
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const Bfloat16 *first = p.x.group(group), *second = first + p.x.stride();
  for (int64_t column = 0; column < p.sizes.columns; column += kDepth) {
    const WeightLines upper = p.lines(output, column, copies[0]), lower = p.lines(output + kGroup, column, copies[1]);
    _tile_loadd(4, upper.at, upper.stride);
    _tile_loadd(5, lower.at, lower.stride);
#pragma GCC unroll 2
    for (int part = 0; part < 2; ++part, first += kTile, second += kTile) {
      _tile_loadd(6, first, kDepth * sizeof(Bfloat16));
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 5, 6);
      if constexpr (kTwoGroups) {
        _tile_loadd(7, second, kDepth * sizeof(Bfloat16));
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  }
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  store(p, sums[0], group * kGroup, output);
  store(p, sums[1], group * kGroup, output + kGroup);
  if constexpr (kTwoGroups) {
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    store(p, sums[2], (group + 1) * kGroup, output);
    store(p, sums[3], (group + 1) * kGroup, output + kGroup);
  }
}

// Blocks [first, end) of W, a panel of them at a time, so that W comes from memory once and x not for every block.
PENSTOCK_AMX void multiply_blocks(const Product& p, int64_t first, int64_t end) {
  _tile_loadconfig(&kShapes);
  const int64_t block_bytes = kWeightBlock * std::max<int64_t>(1, p.sizes.columns) * static_cast<int64_t>(sizeof(Bfloat16));
  const int64_t panel = std::clamp<int64_t>(kPanelBytes / block_bytes, 1, kPanelBlocks);
  for (int64_t begin = first; begin < end; begin += panel) {
    for (int64_t group = 0; group < p.x.groups(); group += 2) {
      for (int64_t block = begin; block < std::min(end, begin + panel); ++block) {
        if (group + 1 < p.x.groups()) multiply_block<true>(p, block * kWeightBlock, group);
        else multiply_block<false>(p, block * kWeightBlock, group);
      }
    }
  }
  _tile_release();
}

}  // namespace

void multiply_by_amx(const Bfloat16* weight, const float* x, float* y, const ProductSizes& sizes) {
  SplitRows split(x, sizes.rows, sizes.columns);
  parallel_for(0, split.groups(), 1, [&](int64_t first, int64_t end) {
    for (int64_t group = first; group < end; ++group) split.split_group(group);
  });
  const Product product{weight, split, y, sizes};
  const int64_t blocks = (sizes.outputs + kWeightBlock - 1) / kWeightBlock, together = split.groups() > 2 ? kBlocksPerTask : 1;
  parallel_for(0, blocks, together, [&](int64_t first, int64_t end) { multiply_blocks(product, first, end); });
}

}  // namespace penstock::kernels

#else

#include "base/error.h"

namespace penstock::kernels {
void multiply_by_amx(const Bfloat16*, const float*, float*, const ProductSizes&) { PENSTOCK_CHECK(false, "no such processor"); }
}  // namespace penstock::kernels

#endif
