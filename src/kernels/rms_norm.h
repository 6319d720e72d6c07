#pragma once
// Root mean square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467).
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// y = x / sqrt(mean(x²) + eps) · weight. x [..., D], weight [D], float32.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

// The same by plain LibTorch operations: the test's reference, and what runs on other devices.
Tensor rms_norm_reference(const Tensor& x, const Tensor& weight, double eps);

}  // namespace penstock::kernels
