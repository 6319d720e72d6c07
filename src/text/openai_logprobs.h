#pragma once
// Log probabilities of tokens in the two shapes of OpenAI's HTTP API.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/token_logprob.h"

namespace penstock::text {

enum class OpenAiKind { kCompletion, kChat };

// A token of the answer and its alternatives: itself, then the most likely ones.
using TokenChoices = std::vector<TokenLogprob>;

// JSON. Chat: {"content": [{"token", "logprob", "bytes", "top_logprobs": [...]}], "refusal": null}, in which U+FFFD stands for what is no UTF-8. Completions:
// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}; there the token is always among its top_logprobs, and bytes that are no UTF-8 read "bytes:\xe2\x80".
// What is impossible has -9999, and what nothing predicts (NaN), the first token of a prompt, null. `offset`: characters of the choice's text before these
// tokens; it goes on behind them. Below 0: of a prompt, tokens that its text does not show.
[[nodiscard]] std::string openai_logprobs(OpenAiKind kind, std::span<const TokenChoices> tokens, int64_t& offset);

// vLLM's prompt_logprobs: a list of objects {"ID": {"logprob", "rank", "decoded_token"}}, of each token of a prompt itself and the `count` most likely ones; null
// for what nothing predicts. The rank, from 1, of a token that is not among those is null: it is not known.
[[nodiscard]] std::string prompt_logprobs_json(std::span<const TokenChoices> tokens, int count);

// Bytes that begin a character: those of a token in its middle belong to it.
[[nodiscard]] int64_t characters_of(std::string_view bytes);

}  // namespace penstock::text
