#include "kernels/quantized_tiles.h"
#include "kernels/quantized_weight.h"

namespace penstock::kernels {
namespace {

// Column `k` of row `r` of a tile's block, as it is stored.
int32_t stored(BlockFormat format, const uint8_t* block, int64_t r, int64_t k) {
  if (format == BlockFormat::kInt8) return static_cast<int8_t>(block[(k / 4 * kTileRows + r) * 4 + k % 4]);
  const int64_t half = kBlockValues / 2, in_half = k % half;
  const uint8_t byte = block[(in_half / 4 * kTileRows + r) * 4 + in_half % 4];
  return k < half ? byte & 15 : byte >> 4;
}

template <BlockFormat kFormat>
float dot(const TileProduct& t, const RowGroup& x, int64_t r) {
  constexpr int64_t kTileBlock = kTileRows * (kFormat == BlockFormat::kInt8 ? kBlockValues : kBlockValues / 2);
  float sum = 0;
  for (int64_t b = 0; b < t.x->blocks(); ++b) {
    int32_t products = kFormat == BlockFormat::kInt4 ? x.corrections4[b] : 0;
    for (int64_t k = 0; k < kBlockValues; ++k) products += x.values[b * kBlockValues + k] * stored(kFormat, t.quants + b * kTileBlock, r, k);
    sum += static_cast<float>(products) * (float_of(t.scales[b * kTileRows + r]) * x.scales[b]);
    if (kFormat == BlockFormat::kInt4Min) sum += float_of(t.minima[b * kTileRows + r]) * x.sums[b];
  }
  return sum;
}

template <BlockFormat kFormat>
void multiply(const TileProduct& t) {
  for (int64_t m = t.first; m < t.end; ++m) {
    for (int64_t r = 0; r < kTileRows; ++r) t.y[(m - t.first) * t.stride + r] = dot<kFormat>(t, t.x->group_at(m), r);
  }
}

RowGrouping one(int64_t) { return {1}; }

}  // namespace

const TileKernels& plain_tile_kernels() {
  static const TileKernels kernels{"plain", one, {multiply<BlockFormat::kInt8>, multiply<BlockFormat::kInt4>, multiply<BlockFormat::kInt4Min>}};
  return kernels;
}

}  // namespace penstock::kernels
