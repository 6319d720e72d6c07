#pragma once
// The arithmetic of reductions: element by element over the ranks, in the order of the ranks. So sums have the same bits wherever they are made and
// however a tensor is cut.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "comm/communicator.h"

namespace penstock::comm {

// target[i] = ((s0[i] op s1[i]) op s2[i]) … for i < count. bfloat16 is added in float32 and rounded once, at the end. `target` may be one of the sources.
// On the calling thread alone. REQUIRES: a dtype of Communicator; at least one source.
// `lost`: for sums of bfloat16, float32 [count] to which is added what the last rounding took; or null.
void combine(std::span<const void* const> sources, void* target, int64_t count, at::ScalarType dtype, Reduce op, float* lost = nullptr);

// rounded = bfloat16(values + residual), residual = what that rounding took; all of one size.
void round_with_residual(const at::Tensor& values, const at::Tensor& residual, const at::Tensor& rounded);

}  // namespace penstock::comm
