#pragma once
// Bodies of OpenAI's HTTP API, completions and chat completions, checked field by field.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "text/generation_request.h"

namespace penstock::text {

// Why a request is refused, in the words of OpenAI's error objects.
struct OpenAiRefusal {
  std::string message;
  std::string param;  // the field that is wrong; empty = none
  std::string code;   // "invalid_value", "unsupported_value", "missing_required_parameter", "unknown_parameter"; empty = none
};

// How a chat's model is to use its tools.
struct ToolUse {
  enum class Choice { kNone, kAuto, kRequired, kNamed };  // kNone: also where there are no tools; kRequired, kNamed: sampling.constraint sees to it
  Choice choice = Choice::kNone;
  std::string function = {};  // of kNamed
  bool parallel = true;       // several calls at once
};

// What one body asks for, both kinds of it.
struct OpenAiCall {
  std::string model;
  SamplingParams sampling;
  std::vector<std::string_view> given;  // the fields that steer it and were there
  int num_choices = 1;          // n, for each prompt
  bool stream = false;
  bool include_usage = false;   // stream_options.include_usage

  // Completions: one of the two lists is not empty.
  std::vector<std::string> prompts;
  std::vector<std::vector<int32_t>> prompt_ids;
  bool echo = false;            // the answer begins with the prompt
  std::string cache_salt;       // GenerationRequest's, of this client's requests
  std::optional<int> prompt_logprobs;  // vLLM's field
  bool prompt_only = false;     // max_tokens: 0; sampling.max_tokens is 1 then, and the token is not shown

  // Chat completions, for ChatTemplate::render().
  std::string messages;         // a JSON list of objects: contents are texts, `developer` is `system`, arguments of tool calls are objects
  std::string tools;            // a JSON list; empty = none
  ToolUse tool_use;
  std::string variables;        // a JSON object; empty = none
  bool add_generation_prompt = true;
};

using OpenAiBody = std::variant<OpenAiCall, OpenAiRefusal>;

// Fields that steer the generation are honoured within OpenAI's ranges. Fields that ask for what is not there (suffix, audio, ...) are
// accepted at the value that changes nothing and refused otherwise; fields without influence on the text (user, metadata, ...) are accepted.
// null is as good as absent. docs/openai.md has the table.
//
// Limits: JSON 64 deep; 128 choices in all; a prompt of 1 byte to 1 MiB or 1 to 1,048,576 ids; 10,000 messages; 512 tools.
[[nodiscard]] OpenAiBody parse_completion_request(std::string_view body);
[[nodiscard]] OpenAiBody parse_chat_request(std::string_view body);

// The model that a body names, whatever else is wrong with it; empty = none.
[[nodiscard]] std::string model_named_in(std::string_view body);

// The seed of choice `index` of a request with this seed; the first one has the seed itself.
[[nodiscard]] uint64_t choice_seed(uint64_t seed, int index);

}  // namespace penstock::text
