#include "text/openai_answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/openai_fields.h"

namespace penstock::text {
namespace {

using Json = nlohmann::ordered_json;

std::string dumped(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string usage_json(const OpenAiUsage& usage) {
  return fmt::format(R"({{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{}}}}})", usage.prompt_tokens,
                     usage.completion_tokens, usage.prompt_tokens + usage.completion_tokens, usage.cached_tokens);
}

Json text_or_null(const std::string& text) { return text.empty() ? Json() : Json(text); }

// Members "tool_calls", with a comma before; nothing without any. `indexed`: of a stream.
std::string calls_json(std::span<const ToolCallPiece> calls, bool indexed) {
  if (calls.empty()) return "";
  Json list = Json::array();
  for (const ToolCallPiece& call : calls) {
    Json& json = list.emplace_back(Json::object());
    if (indexed) json["index"] = call.index;
    if (!call.id.empty()) json.update({{"id", call.id}, {"type", "function"}});
    if (!call.name.empty()) json["function"]["name"] = call.name;
    json["function"]["arguments"] = call.arguments;
  }
  return ",\"tool_calls\":" + dumped(list);
}

// As vLLM has it: of a completion beside its text, of a chat, which has one prompt, at the end.
std::string prompt_member(const OpenAiChoice& choice) { return choice.prompt_logprobs.empty() ? "" : ",\"prompt_logprobs\":" + choice.prompt_logprobs; }

// A message that only calls tools has no content.
std::string message_json(const OpenAiChoice& choice) {
  const std::string content = choice.text.empty() && !choice.calls.empty() ? "null" : json_text(choice.text);
  return fmt::format(R"("message":{{"role":"assistant","content":{},"refusal":null{}}})", content, calls_json(choice.calls, /*indexed=*/false));
}

// What is wrong with a field begins with its name.
OpenAiRefusal refusal_of(const std::string& message, std::string_view api_prompt) {
  const std::string field = message.substr(0, std::min(message.find(": "), message.size()));
  if (!is_openai_field(field)) return {message, "", ""};
  if (field != "prompt") return {message, field, "invalid_value"};
  const bool too_long = message.find(" tokens") != std::string::npos;
  return {message, std::string(api_prompt), too_long ? "context_length_exceeded" : "invalid_value"};
}

}  // namespace

std::string json_text(std::string_view text) { return dumped(Json(text)); }

OpenAiWriter::OpenAiWriter(OpenAiKind kind, std::string_view id, int64_t created, std::string_view model, std::string_view fingerprint, bool include_usage)
    : is_chat_(kind == OpenAiKind::kChat), include_usage_(include_usage) {
  const auto head = [&](const char* object) {
    return fmt::format(R"({{"id":{},"object":"{}","created":{},"model":{},"system_fingerprint":{},)",
                       json_text(fmt::format("{}-{}", is_chat_ ? "chatcmpl" : "cmpl", id)), object, created, json_text(model), json_text(fingerprint));
  };
  head_ = head(is_chat_ ? "chat.completion" : "text_completion");
  chunk_head_ = "data: " + head(is_chat_ ? "chat.completion.chunk" : "text_completion") + "\"choices\":[";
  chunk_tail_ = include_usage ? "],\"usage\":null}\n\n" : "]}\n\n";
}

std::string OpenAiWriter::whole(std::span<const OpenAiChoice> choices, const OpenAiUsage& usage) const {
  std::string json = head_ + "\"choices\":[";
  for (size_t i = 0; i < choices.size(); ++i) {
    const std::string content = is_chat_ ? message_json(choices[i]) : "\"text\":" + json_text(choices[i].text);
    json += fmt::format(R"({}{{"index":{},{},"logprobs":{},"finish_reason":{}{}}})", i > 0 ? "," : "", i, content, choices[i].logprobs,
                        json_text(choices[i].finish_reason), is_chat_ ? "" : prompt_member(choices[i]));
  }
  return json + "],\"usage\":" + usage_json(usage) + (is_chat_ && !choices.empty() ? prompt_member(choices[0]) : "") + "}";
}

std::string OpenAiWriter::event(int index, std::string_view content, std::string_view finish_reason, std::string_view logprobs) const {
  return fmt::format(R"({}{{"index":{},{},"logprobs":{},"finish_reason":{}}}{})", chunk_head_, index, content, logprobs,
                     finish_reason.empty() ? "null" : json_text(finish_reason), chunk_tail_);
}

std::string OpenAiWriter::chunk(int index, const OpenAiDelta& delta) const {
  if (!is_chat_) return event(index, "\"text\":" + json_text(delta.text), "", delta.logprobs);
  std::string members = delta.first ? R"(,"role":"assistant")" : "";
  if (!delta.text.empty() || delta.calls.empty()) members += ",\"content\":" + json_text(delta.text);
  else if (delta.first) members += ",\"content\":null";
  members += calls_json(delta.calls, /*indexed=*/true);
  return event(index, "\"delta\":{" + members.substr(1) + "}", "", delta.logprobs);
}

std::string OpenAiWriter::last_chunk(int index, const OpenAiDelta& delta, std::string_view finish_reason) const {
  if (!is_chat_) return event(index, "\"text\":" + json_text(delta.text), finish_reason, delta.logprobs);
  const bool says = delta.first || !delta.text.empty() || !delta.calls.empty() || delta.logprobs != "null";
  return (says ? chunk(index, delta) : "") + event(index, "\"delta\":{}", finish_reason, "null");
}

std::string OpenAiWriter::end(const OpenAiUsage& usage) const {
  const std::string last = include_usage_ ? chunk_head_ + "],\"usage\":" + usage_json(usage) + "}\n\n" : "";
  return last + "data: [DONE]\n\n";
}

OpenAiFailure openai_failure(const Error& error, std::string_view api_prompt) {
  const std::string message = error.message();
  switch (error.code()) {
    case Code::kInvalidArgument: return {400, "invalid_request_error", refusal_of(message, api_prompt)};
    case Code::kNotFound: return {404, "invalid_request_error", {message, "model", "model_not_found"}};
    case Code::kPermissionDenied: return {403, "invalid_request_error", {message, "", "permission_denied"}};
    case Code::kResourceExhausted: return {429, "rate_limit_error", {message, "", "rate_limit_exceeded"}};
    case Code::kUnavailable: return {503, "server_error", {message, "", "service_unavailable"}};
    case Code::kDeadlineExceeded: return {504, "server_error", {message, "", "timeout"}};
    case Code::kUnimplemented: return {501, "server_error", {message, "", "not_implemented"}};
    default: return {500, "server_error", {message, "", "internal_error"}};
  }
}

std::string failure_json(const OpenAiFailure& failure) {
  return dumped({{"error",
                  {{"message", failure.refusal.message},
                   {"type", failure.type},
                   {"param", text_or_null(failure.refusal.param)},
                   {"code", text_or_null(failure.refusal.code)}}}});
}

std::string failure_event(const OpenAiFailure& failure) { return "data: " + failure_json(failure) + "\n\n"; }

}  // namespace penstock::text
