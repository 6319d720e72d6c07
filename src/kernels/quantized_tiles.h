#pragma once
// Inner products of quantized activations with one tile of a quantized weight, by instruction set. Private to src/kernels; torch-free.
#include <cstdint>

#include "kernels/quantized_blocks.h"
#include "kernels/quantized_rows.h"

namespace penstock::kernels {

// One tile and where its products go: y[m · stride + r] for each row m of [first, end) and each of the tile's 16 rows r; y is of row `first`, with which a
// group begins.
struct TileProduct {
  const uint8_t* quants;   // QuantizedPart's, from the tile's first block on
  const uint16_t* scales;
  const uint16_t* minima;  // kInt4Min only
  const QuantizedRows* x;
  int64_t first, end;
  float* y;
  int64_t stride;
};

// For each format. The sums of one row are added in the same order whatever rows are beside it: a row's result does not depend on the batch that it
// is in, nor on the number of threads.
struct TileKernels {
  const char* name;
  GroupRows group_rows;  // what QuantizedRows must be made with
  void (*multiply[kNumBlockFormats])(const TileProduct& product);
};

// How far ahead a product with few rows asks for its weights: the processor alone does not read ahead far enough to keep the memory busy.
inline constexpr int kBytesAhead = 2048;
inline constexpr int kFewRows = 3;

[[nodiscard]] const TileKernels& plain_tile_kernels();   // any processor; the others' reference
[[nodiscard]] const TileKernels& avx2_tile_kernels();    // AVX2, FMA, F16C
[[nodiscard]] const TileKernels& avx512_tile_kernels();  // AVX-512 F, BW and VNNI
[[nodiscard]] const TileKernels& amx_tile_kernels();     // those, and AMX-INT8 as the system lets this process use it (has_amx())

}  // namespace penstock::kernels
