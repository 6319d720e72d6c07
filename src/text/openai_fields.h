#pragma once
// The fields of OpenAI's request bodies, one table. For the .cpp files of this folder.
#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/openai_request.h"

namespace penstock::text {

enum OpenAiApi : int { kCompletions = 1, kChat = 2, kBothApis = 3 };

// A call as its fields are read, with what several fields decide together.
struct OpenAiDraft {
  OpenAiCall call;
  std::optional<int> max_tokens;
  std::optional<int> max_completion_tokens;
  std::optional<int> best_of;
  bool chat_logprobs = false;
  int top_logprobs = 0;
  bool has_stream_options = false;
  std::string reasoning_effort;  // empty = not given
  bool constrains = false;       // there is one of kConstraintFields
};

// Reads one field that is not null. Throws OpenAiRefusal: an unknown field, a value out of range, one that is not supported.
void read_openai_field(OpenAiApi api, const std::string& name, const nlohmann::json& value, OpenAiDraft& draft);

// The body of a request: a JSON object, at most 64 deep. Throws OpenAiRefusal.
[[nodiscard]] nlohmann::json parse_openai_body(std::string_view body);

// One that steers the generation.
[[nodiscard]] bool is_openai_field(std::string_view name);

[[nodiscard]] OpenAiRefusal unknown_openai_field(std::string_view name, const std::vector<std::string_view>& known);
// "NAME: expected EXPECTED, found VALUE".
[[nodiscard]] OpenAiRefusal out_of_range(std::string_view name, std::string_view expected, const nlohmann::json& value);

}  // namespace penstock::text
