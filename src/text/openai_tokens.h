#pragma once
// Bodies and answers of /tokenize and /detokenize, as vLLM has them.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/openai_request.h"

namespace penstock::text {

struct TokenizeCall {
  std::string model;
  std::string prompt;
  bool add_special_tokens = true;
};
struct DetokenizeCall {
  std::string model;
  std::vector<int32_t> tokens;
};

// {"model", "prompt", "add_special_tokens"}; a body with "messages" is parse_chat_request()'s.
[[nodiscard]] std::variant<TokenizeCall, OpenAiCall, OpenAiRefusal> parse_tokenize_request(std::string_view body);
// {"model", "tokens"}; at most 1,048,576 tokens.
[[nodiscard]] std::variant<DetokenizeCall, OpenAiRefusal> parse_detokenize_request(std::string_view body);

// `max_model_len`: prompt and completion together; 0 = not known yet.
[[nodiscard]] std::string tokenized_json(std::span<const int32_t> tokens, int max_model_len);

}  // namespace penstock::text
