#pragma once
// Attention over the pages of the KV cache by plain LibTorch operations, which run on any device. Private to src/kernels; attention.h is the door.
#include "kernels/attention.h"
#include "kernels/step_rows.h"

namespace penstock::kernels {

// What cached_attention() says, with one difference: qkv stays as it is. Of the same results as the CPU's kernel, but for rounding: sums have another order, and how
// LibTorch multiplies depends on how many rows there are.
Tensor cached_attention_tensors(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, StepRows& rows, Tensor& k_cache, Tensor& v_cache);

}  // namespace penstock::kernels
