#pragma once
// Our own CUDA kernels: what serving does often, and LibTorch in many launches or with copies of the weights. Sums are float32, and a row's result depends on
// that row alone. Without gradients.
//
// Where this was built without a CUDA compiler (PENSTOCK_CUDA_KERNELS in cmake/Cuda.cmake), built() is false, and takes() with it: then LibTorch's operations
// serve, with the same results but for rounding. The other functions require takes(x); they work on the GPU of x, on LibTorch's current stream, and return
// before it is done. All tensors are on that GPU, and float32 unless it says otherwise. A launch that fails throws Error kInternal.
#include <cstdint>

#include "kernels/attention.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels::cuda {

[[nodiscard]] bool built();

// x is float32 on a CUDA device, and no gradients are recorded.
[[nodiscard]] bool takes(const Tensor& x);

// As kernels::rms_norm(), head_norm() and swiglu(). One launch each.
[[nodiscard]] Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);
[[nodiscard]] Tensor head_norm(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight, const Tensor& k_weight, double eps);
[[nodiscard]] Tensor swiglu(const Tensor& gate_up);

// Rows up to which a product takes no longer than reading the weight.
inline constexpr int64_t kFewRows = 8;

// takes(x), x has at most kFewRows rows, fewer where a weight is so large that LibTorch is faster, and the weight is float32 or bfloat16 without gaps (a quantized one is not: it has a placeholder's strides).
[[nodiscard]] bool takes_product(const Tensor& x, const Tensor& weight);

// REQUIRES: takes_product(). base [..., O] + x [..., D] · weight [O, D]ᵀ + bias [O] -> [..., O]. `base` and `bias` may be undefined. x is not rounded. One launch.
[[nodiscard]] Tensor product(const Tensor& base, const Tensor& x, const Tensor& weight, const Tensor& bias);
// REQUIRES: takes_product(), O even. As swiglu() of the product -> [..., O/2]. One launch.
[[nodiscard]] Tensor gated_product(const Tensor& x, const Tensor& weight, const Tensor& bias);

}  // namespace penstock::kernels::cuda
