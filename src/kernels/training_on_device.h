#pragma once
// Norm, gate and rotation of training by LibTorch's operations, with gradients of their own: autograd's would take more launches and memory. For tensors on any device; private to
// src/kernels.
#include "kernels/rotary.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// As rms_norm().
Tensor rms_norm_on_device(const Tensor& x, const Tensor& weight, double eps);

// As swiglu().
Tensor swiglu_on_device(const Tensor& gate_up);

// x [..., K] float32; cos and sin, which broadcast against [..., K/2], turn the pair of elements i and i + K/2.
Tensor rotated_on_device(const Tensor& x, const Tensor& cos, const Tensor& sin);

}  // namespace penstock::kernels
