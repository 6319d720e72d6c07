#include "text/generation_check.h"

#include <algorithm>
#include <string_view>

#include "base/utf8.h"

namespace penstock::text {
namespace {

template <typename Value>
Error out_of_range(std::string_view field, std::string_view expected, const Value& found) {
  return error(Code::kInvalidArgument, "field '{}': expected {}, found {}", field, expected, found);
}

std::optional<Error> check_prompt(const GenerationRequest& request) {
  if (!request.prompt_ids.empty()) {
    const auto& ids = request.prompt_ids;
    if (ids.size() > kMaxPromptIds) return out_of_range("token_ids", "at most 1,048,576 of them", ids.size());
    const auto negative = std::find_if(ids.begin(), ids.end(), [](int32_t id) { return id < 0; });
    if (negative != ids.end()) return out_of_range("token_ids", "ids that are not negative", *negative);
    return std::nullopt;
  }
  const std::string& prompt = request.prompt;
  if (prompt.empty() || prompt.size() > kMaxPromptBytes) return out_of_range("text", "1 byte to 1 MiB", fmt::format("{} bytes", prompt.size()));
  const size_t at = find_invalid_utf8(prompt);
  if (at == std::string_view::npos) return std::nullopt;
  return out_of_range("text", "UTF-8", fmt::format("an invalid byte 0x{:02x} at offset {}", static_cast<unsigned char>(prompt[at]), at));
}

// NaN is in no range.
struct Range {
  const char* field;
  double value;
  double min, max;
  const char* expected;
  bool min_allowed = true;
};

std::optional<Error> check_numbers(const SamplingParams& s) {
  const Range ranges[] = {
      {"temperature", s.temperature, 0, 2, "a number from 0 to 2"},
      {"top_p", s.top_p, 0, 1, "a number > 0 and <= 1", false},
      {"min_p", s.min_p, 0, 1, "a number from 0 to 1"},
      {"repetition_penalty", s.repetition_penalty, 0, kMaxRepetitionPenalty, "a number > 0 and <= 10", false},
      {"presence_penalty", s.presence_penalty, -2, 2, "a number from -2 to 2"},
      {"frequency_penalty", s.frequency_penalty, -2, 2, "a number from -2 to 2"},
  };
  for (const Range& range : ranges) {
    const bool fits = range.value >= range.min && range.value <= range.max && (range.min_allowed || range.value > range.min);
    if (!fits) return out_of_range(range.field, range.expected, range.value);
  }
  if (s.max_tokens < 1) return out_of_range("max_tokens", "an integer >= 1", s.max_tokens);
  if (s.min_tokens < 0 || s.min_tokens > s.max_tokens) {
    return out_of_range("min_tokens", fmt::format("an integer from 0 to max_tokens, which is {}", s.max_tokens), s.min_tokens);
  }
  if (s.top_k < 0) return out_of_range("top_k", "an integer >= 0", s.top_k);
  const int logprobs = s.logprobs.value_or(0), prompt_logprobs = s.prompt_logprobs.value_or(0);
  if (logprobs < 0 || logprobs > kMaxLogprobs) return out_of_range("logprobs", "an integer from 0 to 20", logprobs);
  if (prompt_logprobs < 0 || prompt_logprobs > kMaxLogprobs) return out_of_range("prompt_logprobs", "an integer from 0 to 20", prompt_logprobs);
  return std::nullopt;
}

std::optional<Error> check_lists(const SamplingParams& s) {
  if (s.stop.size() > kMaxStops) return out_of_range("stop", "at most 16 texts", s.stop.size());
  for (const std::string& stop : s.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) return out_of_range("stop", "texts of 1 to 256 bytes", fmt::format("one of {}", stop.size()));
    if (find_invalid_utf8(stop) != std::string_view::npos) return out_of_range("stop", "UTF-8", "other bytes");
  }
  if (s.stop_token_ids.size() > kMaxStopTokens) return out_of_range("stop_token_ids", "at most 64 token ids", s.stop_token_ids.size());
  for (const int32_t id : s.stop_token_ids) {
    if (id < 0) return out_of_range("stop_token_ids", "ids that are not negative", id);
  }
  if (s.logit_bias.size() > kMaxLogitBiases) return out_of_range("logit_bias", "at most 1024 token ids", s.logit_bias.size());
  for (const auto& [id, bias] : s.logit_bias) {
    if (id < 0) return out_of_range("logit_bias", "ids that are not negative", id);
    if (!(bias >= -100 && bias <= 100)) return out_of_range("logit_bias", "numbers from -100 to 100", bias);
  }
  return std::nullopt;
}

}  // namespace

std::optional<Error> check_generation_request(const GenerationRequest& request) {
  if (auto bad = check_prompt(request)) return bad;
  if (request.cache_salt.size() > kMaxSaltBytes) return out_of_range("cache_salt", "at most 256 bytes", fmt::format("{} bytes", request.cache_salt.size()));
  if (auto bad = check_numbers(request.sampling)) return bad;
  return check_lists(request.sampling);
}

}  // namespace penstock::text
