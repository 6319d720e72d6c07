#pragma once
// y = x · Wᵀ in float32, with a W of float32 or bfloat16, for serving. Torch-free.
//
// A row of y depends on its row of x alone: not on the rows beside it, nor on the number of threads. A W of bfloat16 gives the bits that the same numbers give in
// float32, except in matrix registers (kernels/bf16_product.h).
//
// Why not oneDNN's: its sums run in another order for one row than for many, and it shares the work out among OpenMP's threads, which wait for each other by
// spinning (kernels/thread_team.h).
#include <cstdint>

namespace penstock::kernels {

using Bfloat16 = uint16_t;  // kernels/bfloat16.h

struct FloatKernels;

struct ProductSizes {
  int64_t rows = 0;     // of x and y
  int64_t outputs = 0;  // rows of W
  int64_t columns = 0;
};

// The fastest that this processor has.
[[nodiscard]] const FloatKernels& best_float_kernels();
// Their instruction set: "AVX2", and that of products with a W of bfloat16.
[[nodiscard]] const char* float_instruction_set();
[[nodiscard]] const char* bf16_instruction_set();

// x [rows, columns], W [outputs, columns], y [rows, outputs], all row-major. Threads: as parallel_for().
void multiply(const float* weight, const float* x, float* y, const ProductSizes& sizes);
void multiply(const Bfloat16* weight, const float* x, float* y, const ProductSizes& sizes);
void multiply(const float* weight, const float* x, float* y, const ProductSizes& sizes, const FloatKernels& kernels);
void multiply(const Bfloat16* weight, const float* x, float* y, const ProductSizes& sizes, const FloatKernels& kernels);

}  // namespace penstock::kernels
