#pragma once
// What the matrix products of a layer are computed in.

namespace penstock::kernels {

// Activations, weights and gradients stay float32 either way.
enum class Compute {
  kFp32,
  kBf16,  // operands rounded to bfloat16, sums in float32; fast on CPUs with AVX512-BF16 or AMX and on GPUs
  kFp16,  // training: operands and products rounded to float16, sums in float32; fast on GPUs. On a CPU the same numbers, slowly
};

}  // namespace penstock::kernels
