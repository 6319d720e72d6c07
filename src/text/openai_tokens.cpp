#include "text/openai_tokens.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "text/openai_fields.h"
#include "text/token_fields.h"

namespace penstock::text {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxTokens = 1 << 20;
constexpr size_t kPromptLimit = 1 << 20;  // bytes

const std::string& text_of(const Json& json, const char* name, size_t limit) {
  static const Json nothing;
  const auto found = json.find(name);
  const Json& value = found == json.end() ? nothing : *found;
  if (value.is_null()) throw OpenAiRefusal{fmt::format("{}: is missing", name), name, "missing_required_parameter"};
  if (!value.is_string() || value.get_ref<const std::string&>().size() > limit) {
    throw out_of_range(name, fmt::format("a text of at most {} bytes", limit), value);
  }
  return value.get_ref<const std::string&>();
}

void check_keys(const Json& json, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) throw unknown_openai_field(key, {known.begin(), known.end()});
  }
}

TokenizeCall tokenize_call(const Json& json) {
  check_keys(json, {"model", "prompt", "add_special_tokens", "return_token_strs"});
  TokenizeCall call{text_of(json, "model", 256), text_of(json, "prompt", kPromptLimit)};
  for (const char* name : {"add_special_tokens", "return_token_strs"}) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) continue;
    if (!found->is_boolean()) throw out_of_range(name, "true or false", *found);
    if (std::string_view(name) == "add_special_tokens") call.add_special_tokens = found->get<bool>();
    else if (found->get<bool>()) throw OpenAiRefusal{"return_token_strs: true is not supported; expected false", name, "unsupported_value"};
  }
  return call;
}

DetokenizeCall detokenize_call(const Json& json) {
  check_keys(json, {"model", "tokens"});
  DetokenizeCall call{text_of(json, "model", 256), {}};
  const auto tokens = json.find("tokens");
  if (tokens == json.end() || tokens->is_null()) throw OpenAiRefusal{"tokens: is missing", "tokens", "missing_required_parameter"};
  if (!read_token_ids(*tokens, kMaxTokens, call.tokens)) throw out_of_range("tokens", fmt::format("a list of at most {} token ids", kMaxTokens), *tokens);
  return call;
}

}  // namespace

std::variant<TokenizeCall, OpenAiCall, OpenAiRefusal> parse_tokenize_request(std::string_view body) {
  try {
    const Json json = parse_openai_body(body);
    if (!json.contains("messages")) return tokenize_call(json);
  } catch (OpenAiRefusal& refusal) {
    return std::move(refusal);
  }
  OpenAiBody chat = parse_chat_request(body);
  if (auto* refusal = std::get_if<OpenAiRefusal>(&chat)) return std::move(*refusal);
  return std::get<OpenAiCall>(std::move(chat));
}

std::variant<DetokenizeCall, OpenAiRefusal> parse_detokenize_request(std::string_view body) {
  try {
    return detokenize_call(parse_openai_body(body));
  } catch (OpenAiRefusal& refusal) {
    return std::move(refusal);
  }
}

std::string tokenized_json(std::span<const int32_t> tokens, int max_model_len) {
  return fmt::format(R"({{"count":{},"max_model_len":{},"tokens":[{}],"token_strs":null}})", tokens.size(),
                     max_model_len > 0 ? std::to_string(max_model_len) : "null", fmt::join(tokens, ","));
}

}  // namespace penstock::text
