#include "text/chat_prompt.h"

#include <nlohmann/json.hpp>

namespace penstock::text {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kPromptLimit = 1 << 20;  // bytes

void guard_texts(Json& value, const Tokenizer& tokenizer) {
  if (value.is_string()) {
    value = tokenizer.guarded(value.get_ref<const std::string&>());
  } else if (value.is_array()) {
    for (Json& item : value) guard_texts(item, tokenizer);
  } else if (value.is_object()) {
    Json guarded = Json::object();
    for (auto& [key, item] : value.items()) {
      guard_texts(item, tokenizer);
      guarded[tokenizer.guarded(key)] = std::move(item);
    }
    value = std::move(guarded);
  }
}

// REQUIRES: JSON, or nothing.
std::string guarded_json(const std::string& text, const Tokenizer& tokenizer) {
  if (text.empty()) return text;
  Json json = Json::parse(text);
  guard_texts(json, tokenizer);
  return json.dump();
}

}  // namespace

Result<std::string> render_chat_prompt(const ChatTemplate& chat_template, const Tokenizer& tokenizer, const OpenAiCall& call) {
  const ChatOptions options{call.add_generation_prompt, guarded_json(call.tools, tokenizer), guarded_json(call.variables, tokenizer)};
  auto rendered = chat_template.render(guarded_json(call.messages, tokenizer), options);
  if (!rendered) return rendered.error();
  if (rendered->text.empty()) return error(Code::kInvalidArgument, "messages: the model's template makes an empty prompt of them");
  if (rendered->text.size() > kPromptLimit) {
    return error(Code::kInvalidArgument, "messages: a prompt of {} bytes; expected at most {}", rendered->text.size(), kPromptLimit);
  }
  return std::move(rendered->text);
}

}  // namespace penstock::text
