#pragma once
// The element types of products. Private to src/kernels.
#include <ATen/core/Tensor.h>

#include "kernels/compute.h"

namespace penstock::kernels {

[[nodiscard]] inline at::ScalarType operand_dtype(Compute compute) {
  switch (compute) {
    case Compute::kFp32: return at::kFloat;
    case Compute::kBf16: return at::kBFloat16;
    case Compute::kFp16: return at::kHalf;
  }
  return at::kFloat;
}

}  // namespace penstock::kernels
