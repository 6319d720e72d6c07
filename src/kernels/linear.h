#pragma once
// y = x · Wᵀ + b, with gradients.
#include "kernels/compute.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

class QuantizedWeights;
class WeightGradQueue;

struct LinearOptions {
  Compute compute = Compute::kFp32;
  // Where set, the backward pass makes the gradient of x only, and leaves the weight's to this queue, which must outlive the graph. An x that
  // needs no gradient leaves nothing to put off: the weight's gradient is then made as usual.
  WeightGradQueue* weight_grads = nullptr;
  // Serving: the weights that are held quantized. Their products need no gradient, and `compute` does not matter to them.
  const QuantizedWeights* quantized = nullptr;
};

// x [..., D] float32, weight [O, D] float32 (serving in bfloat16: that) -> [..., O] float32. Records a gradient for what requires one.
Tensor linear(const Tensor& x, const Tensor& weight, const LinearOptions& options = {});

// With `bias` [O] added, or none where it is undefined. Its gradient is never put off: it is a sum over rows, as cheap as a norm's.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const LinearOptions& options);

// base + linear(), and swiglu() of linear(): one launch where our own CUDA kernels take the product.
Tensor add_linear(const Tensor& base, const Tensor& x, const Tensor& weight, const Tensor& bias, const LinearOptions& options);
Tensor gated_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const LinearOptions& options);

}  // namespace penstock::kernels
