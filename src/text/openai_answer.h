#pragma once
// Answers of OpenAI's HTTP API as JSON and as server-sent events.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/openai_logprobs.h"
#include "text/openai_request.h"
#include "text/tool_call_reader.h"

namespace penstock::text {

struct OpenAiUsage {
  int64_t prompt_tokens = 0;      // of each prompt once
  int64_t completion_tokens = 0;  // of all choices
  int64_t cached_tokens = 0;      // of prompt_tokens, those that were not computed anew
};

struct OpenAiChoice {
  std::string text;
  std::string finish_reason;      // "stop", "length", "tool_calls"
  std::string logprobs = "null";  // openai_logprobs()
  std::vector<ToolCallPiece> calls = {};  // of a chat, each whole
  std::string prompt_logprobs = {};       // prompt_logprobs_json(); empty: not asked for
};

// What a chunk adds to its choice.
struct OpenAiDelta {
  std::string_view text;
  bool first = false;                    // of its choice
  std::string_view logprobs = "null";    // openai_logprobs() of its tokens
  std::span<const ToolCallPiece> calls = {};  // of a chat
};

// Threads: const and shared freely after construction.
class OpenAiWriter {
 public:
  // `id`: without its prefix. `created`: seconds since 1970. `include_usage`: the stream ends with a usage chunk, the others say null.
  OpenAiWriter(OpenAiKind kind, std::string_view id, int64_t created, std::string_view model, std::string_view fingerprint, bool include_usage);

  [[nodiscard]] std::string whole(std::span<const OpenAiChoice> choices, const OpenAiUsage& usage) const;

  // Events, "data: {...}\n\n". A chat's first chunk of a choice carries the role together with the first text, so that the first chunk a client
  // sees is the first token.
  [[nodiscard]] std::string chunk(int index, const OpenAiDelta& delta) const;
  // Ends a choice. What is still to be said gets a chunk of its own before in a chat.
  [[nodiscard]] std::string last_chunk(int index, const OpenAiDelta& delta, std::string_view finish_reason) const;
  // The usage chunk if one was asked for, and the end of the stream.
  [[nodiscard]] std::string end(const OpenAiUsage& usage) const;

 private:
  [[nodiscard]] std::string event(int index, std::string_view content, std::string_view finish_reason, std::string_view logprobs) const;

  const bool is_chat_;
  std::string head_;        // {"id":...,"model":"m", the start of a whole answer
  std::string chunk_head_;  // data: {"id":...,"choices":[
  std::string chunk_tail_;  // ]...}\n\n
  const bool include_usage_;
};

// An error as OpenAI's clients know it: the status line, and {"error": {"message", "type", "param", "code"}}.
struct OpenAiFailure {
  int status = 400;
  std::string type = "invalid_request_error";
  OpenAiRefusal refusal;
};

// The failure that an error means to the client. `api_prompt`: the field that a complaint about the prompt names ("prompt", "messages").
[[nodiscard]] OpenAiFailure openai_failure(const Error& error, std::string_view api_prompt);
// JSON; all four keys are there, null where there is nothing to say.
[[nodiscard]] std::string failure_json(const OpenAiFailure& failure);
// The last event of a stream that fails.
[[nodiscard]] std::string failure_event(const OpenAiFailure& failure);

// A text as JSON, quotes included; what is no UTF-8 becomes U+FFFD.
[[nodiscard]] std::string json_text(std::string_view text);

}  // namespace penstock::text
