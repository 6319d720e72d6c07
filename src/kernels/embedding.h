#pragma once
// Rows of a table by their numbers.
#include "kernels/linear.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// table [V, D] float32 or bfloat16, or quantized (options.quantized); ids [...] int64 in [0, V) -> [..., D] float32.
Tensor embedding(const Tensor& table, const Tensor& ids, const LinearOptions& options = {});

}  // namespace penstock::kernels
