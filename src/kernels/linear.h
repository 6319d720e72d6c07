#pragma once
// y = x · Wᵀ, with gradients.
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// What the products of a layer are computed in. Activations, weights and gradients stay float32 either way.
enum class Compute {
  kFp32,
  kBf16,  // operands rounded to bfloat16, sums in float32; fast on CPUs with AVX512-BF16 or AMX and on GPUs
};

// x [..., D] float32, weight [O, D] float32 -> [..., O] float32. Records a gradient for what requires one.
Tensor linear(const Tensor& x, const Tensor& weight, Compute compute);

}  // namespace penstock::kernels
