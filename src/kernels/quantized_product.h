#pragma once
// y = x · Wᵀ with a quantized W. Torch-free.
//
// x is rounded to int8 in blocks of 32, products are summed as integers within a block and as float32 over the blocks of a row. A row of x whose one value
// outweighs all others (language models have such for a text's first token) is taken in two parts, the second what rounding loses of it. A row of y depends on its
// row of x alone: not on the rows beside it, nor on the number of threads.
#include <cstdint>

#include "kernels/quantized_weight.h"

namespace penstock::kernels {

struct TileKernels;

// The fastest that this processor has.
[[nodiscard]] const TileKernels& best_tile_kernels();
// Their instruction set: "AVX2".
[[nodiscard]] const char* quantized_instruction_set();

// x [rows, W's columns], y [rows, W's rows], both row-major float32. Threads: as parallel_for().
void multiply(const QuantizedWeight& weight, const float* x, int64_t rows, float* y);
void multiply(const QuantizedWeight& weight, const float* x, int64_t rows, float* y, const TileKernels& kernels);

}  // namespace penstock::kernels
