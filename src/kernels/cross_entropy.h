#pragma once
// Next-token loss.
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// Sum over all positions of −log softmax(logits)[target], in nats. logits [..., V] float32, targets [...] int64 in [0, V);
// a negative target is not counted. -> scalar float32, with a gradient for logits. The sum is taken in float64.
Tensor cross_entropy_sum(const Tensor& logits, const Tensor& targets);

// The same by plain LibTorch operations.
Tensor cross_entropy_sum_reference(const Tensor& logits, const Tensor& targets);

}  // namespace penstock::kernels
