#pragma once
// Greedy choice on the device that has the logits: a few numbers go to the host in place of whole rows.
#include <vector>

#include "engine/sampler.h"
#include "tensor/tensor_fwd.h"

namespace penstock::engine {

// The token is the largest of the logits as they came, and nothing else is asked about it.
[[nodiscard]] bool is_plain_greedy(const SamplingChoice& choice, const TokenHistory& history);

// Of each row of logits [S, V], on any device, what next_token() gives with such a choice. Blocks until the device has them.
[[nodiscard]] std::vector<SampledToken> greedy_tokens(const Tensor& logits);

}  // namespace penstock::engine
