#include "engine/greedy_tokens.h"

#include <ATen/ATen.h>

#include <limits>

namespace penstock::engine {

bool is_plain_greedy(const SamplingChoice& choice, const TokenHistory& history) {
  const bool changes = !choice.logit_bias.empty() || choice.repetition_penalty != 1 || choice.presence_penalty != 0 || choice.frequency_penalty != 0 || choice.constraint ||
                       (history.completion_tokens() < choice.min_tokens && !choice.ends.empty());
  return choice.temperature <= 0 && choice.logprobs < 0 && !changes;
}

std::vector<SampledToken> greedy_tokens(const Tensor& logits) {
  const auto [largest, ids] = logits.max(-1);  // NaN where there is one; of equal ones the lowest id
  // Ids are exact in float64.
  const Tensor both = at::stack({largest.to(at::kDouble), ids.to(at::kDouble)}).cpu();
  const double *value = both.data_ptr<double>(), *id = value + logits.size(0);
  std::vector<SampledToken> tokens(static_cast<size_t>(logits.size(0)));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i].id = value[i] < std::numeric_limits<double>::infinity() ? static_cast<int32_t>(id[i]) : kNotNumbers;
  return tokens;
}

}  // namespace penstock::engine
