#pragma once
// Attention of training by LibTorch's operations, for tensors of a GPU. Private to src/kernels.
#include "kernels/attention.h"

namespace penstock::kernels {

// As causal_attention(), on any device; in bf16 and fp16 queries, keys and values are rounded. Documents are taken as they are said to be.
// Memory: with LibTorch 2 some copies of qkv, on a GPU; with older ones, and where no fused kernel fits, also scores and their softmax, 8 · B · H · T² bytes and as much again in
// the backward pass.
Tensor attention_on_device(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const Tensor& starts, Compute compute);

}  // namespace penstock::kernels
