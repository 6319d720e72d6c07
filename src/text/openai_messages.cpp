#include "text/openai_messages.h"

#include <string>

#include "base/utf8.h"
#include "text/json_input.h"
#include "text/openai_request.h"
#include "text/tool_call_reader.h"

namespace penstock::text {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxParts = 1024;      // of a content
constexpr int kArgumentsDepth = 16;
constexpr uint64_t kArgumentKeyComparisons = 100'000;  // an object with 450 keys; there may be thousands of calls

[[noreturn]] void refuse(const std::string& place, const std::string& expected, const Json* found) {
  const std::string what = found == nullptr ? "nothing" : shown(nlohmann::json(*found));
  throw OpenAiRefusal{fmt::format("{}: expected {}, found {}", place, expected, what), place, found == nullptr ? "missing_required_parameter" : "invalid_value"};
}

// null when the member is absent or null.
Json* member(Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const std::string& text_member(Json& object, const char* key, const std::string& place) {
  Json* found = member(object, key);
  if (found == nullptr || !found->is_string()) refuse(fmt::format("{}.{}", place, key), "a text", found);
  return found->get_ref<const std::string&>();
}

std::string joined_parts(Json& parts, const std::string& place) {
  if (parts.empty() || parts.size() > kMaxParts) refuse(place, fmt::format("a text or a list of 1 to {} parts", kMaxParts), &parts);
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", place, i);
    if (!parts[i].is_object()) refuse(where, "an object", &parts[i]);
    const std::string& type = text_member(parts[i], "type", where);
    if (type != "text" && type != "refusal") {
      throw OpenAiRefusal{fmt::format("{}.type: '{}' is not supported; expected text", where, utf8_prefix(type, 64)), where + ".type", "unsupported_value"};
    }
    if (i > 0) text += '\n';
    text += text_member(parts[i], type.c_str(), where);
  }
  return text;
}

void check_content(Json& message, const std::string& role, const std::string& place) {
  const std::string where = place + ".content";
  Json* content = member(message, "content");
  if (content == nullptr) {
    if (role != "assistant" || !member(message, "tool_calls")) refuse(where, "a text or a list of parts", nullptr);
    message["content"] = "";
  } else if (content->is_array()) {
    *content = joined_parts(*content, where);
  } else if (!content->is_string()) {
    refuse(where, "a text or a list of parts", content);
  }
}

void check_tool_calls(Json& calls, const std::string& place) {
  if (!calls.is_array() || calls.empty() || calls.size() > static_cast<size_t>(kMaxToolCalls)) refuse(place, fmt::format("a list of 1 to {} tool calls", kMaxToolCalls), &calls);
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", place, i);
    if (!calls[i].is_object()) refuse(where, "an object", &calls[i]);
    Json* function = member(calls[i], "function");
    if (function == nullptr || !function->is_object()) refuse(where + ".function", "an object", function);
    (void)text_member(*function, "name", where + ".function");
    Json* arguments = member(*function, "arguments");
    if (arguments == nullptr || arguments->is_object()) continue;
    const std::string text = text_member(*function, "arguments", where + ".function");
    auto parsed = parse_ordered_json(text, "arguments", Code::kInvalidArgument, kArgumentsDepth, kArgumentKeyComparisons);
    if (parsed && parsed->is_object()) *arguments = std::move(*parsed);
    else if (!parsed && parse_json(text, "arguments", Code::kInvalidArgument, {.depth = kArgumentsDepth})) refuse(where + ".function.arguments", "an object with fewer keys", arguments);
  }
}

void check_message(Json& message, const std::string& place) {
  if (!message.is_object()) refuse(place, "an object", &message);
  const std::string role = text_member(message, "role", place);
  if (role == "developer") message["role"] = "system";
  else if (role != "system" && role != "user" && role != "assistant" && role != "tool") {
    refuse(place + ".role", "system, developer, user, assistant or tool", member(message, "role"));
  }
  for (auto& [key, value] : message.items()) {
    const std::string where = fmt::format("{}.{}", place, utf8_prefix(key, 64));
    const bool known = key == "role" || key == "content" || key == "refusal" || key == "annotations";
    const bool text = key == "name" || key == "tool_call_id" || key == "reasoning_content" || key == "reasoning";
    if (known || value.is_null() || (text && value.is_string())) continue;
    if (text) refuse(where, "a text", &value);
    if (key == "tool_calls" && role == "assistant") check_tool_calls(value, where);
    else throw OpenAiRefusal{fmt::format("{}: is not supported in a message of role {}", where, role), where, "unknown_parameter"};
  }
  check_content(message, role, place);
}

}  // namespace

void check_openai_messages(Json& messages) {
  for (size_t i = 0; i < messages.size(); ++i) check_message(messages[i], fmt::format("messages[{}]", i));
}

}  // namespace penstock::text
