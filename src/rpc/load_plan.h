#pragma once
// What a load test asks for, and when: functions of its seed.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::rpc {

// One request: a text or token ids.
struct LoadPrompt {
  std::string text;
  std::vector<int32_t> ids;
  int max_tokens = 1;
};

// Prompts of `tokens` ids each, drawn from 0 ... vocabulary - 1. REQUIRES: tokens and vocabulary are at least 1.
[[nodiscard]] std::vector<LoadPrompt> random_prompts(size_t count, int tokens, int vocabulary, int max_tokens, uint64_t seed);

// `count` prompts of a file's content, from its first line again after the last one. A line is a prompt, or a JSON object with "prompt" and, if it has
// its own, "max_tokens". Empty lines are passed over. kInvalidArgument naming the line; `name`: the file's, for messages.
[[nodiscard]] Result<std::vector<LoadPrompt>> prompts_of_file(std::string_view content, const std::string& name, size_t count, int max_tokens);

// Seconds after the start when each request is sent: a Poisson process of `rate` requests a second; all at once when it is 0.
[[nodiscard]] std::vector<double> arrival_seconds(size_t count, double rate, uint64_t seed);

}  // namespace penstock::rpc
