#pragma once
// Inner products of some rows of activations with some rows of a floating-point weight, by instruction set. Private to src/kernels; torch-free.
#include <cstdint>

#include "kernels/bfloat16.h"
#include "kernels/float_product.h"

namespace penstock::kernels {

// Of W, taken at once.
inline constexpr int kWeightRows = 4;

// y[m · y_row + j] += Σ x[m · x_row + k] · w[j · w_row + k] over `columns` values of k.
template <typename W>
struct FloatTile {
  const float* x;
  int64_t x_row;
  const W* w;
  int64_t w_row;
  int64_t columns;
  float* y;
  int64_t y_row;

  // The same of one row of W.
  [[nodiscard]] FloatTile with_weight(int j) const { return {x, x_row, w + j * w_row, w_row, columns, y + j, y_row}; }
};

// For 1 … rows_at_once rows of x and 1 … kWeightRows of W. A sum is made in the same order whatever rows are beside it.
struct FloatKernels {
  const char* name;
  int rows_at_once;
  void (*add_fp32)(const FloatTile<float>& tile, int rows, int weights);
  void (*add_bf16)(const FloatTile<Bfloat16>& tile, int rows, int weights);
};

[[nodiscard]] const FloatKernels& plain_float_kernels();   // any processor; the others' reference
[[nodiscard]] const FloatKernels& avx2_float_kernels();    // AVX2, FMA
[[nodiscard]] const FloatKernels& avx512_float_kernels();  // AVX-512 F

}  // namespace penstock::kernels
