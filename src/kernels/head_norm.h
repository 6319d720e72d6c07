#pragma once
// Root mean square normalisation of each query and key head before rotary positions (Qwen3; Dehghani et al. 2023, arXiv 2302.05442, with LayerNorm).
#include "kernels/attention.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// qkv [..., (H+2G)·K] float32; query heads are normalised with q_weight [K], key heads with k_weight [K], value heads are copied. -> as qkv, with
// gradients for all three inputs.
Tensor head_norm(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight, const Tensor& k_weight, double eps);

// The same by plain LibTorch operations: the test's reference, and what runs on other devices.
Tensor head_norm_reference(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight, const Tensor& k_weight, double eps);

}  // namespace penstock::kernels
