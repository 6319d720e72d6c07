#pragma once
// Next-token loss where ranks have the logits of some tokens each (TensorRanks with SharedLogits::kOwn).
#include <ATen/core/Tensor.h>

#include "model/tensor_ranks.h"

namespace penstock::model {

// As kernels::cross_entropy_sum() over the logits of all ranks side by side; no rank holds them. logits [..., v] float32: of tokens [first_token, first_token + v);
// targets [...] int64, over the whole vocabulary, negative ones not counted. -> scalar float32, the same on every rank, with a gradient for this rank's logits.
// Two all-reduces of one and two numbers a row.
[[nodiscard]] at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets, int64_t first_token, const TensorRanks& ranks);

}  // namespace penstock::model
