#include "text/openai_logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace penstock::text {
namespace {

using Json = nlohmann::ordered_json;

Json shown(double logprob) {
  if (std::isnan(logprob)) return nullptr;
  return std::isfinite(logprob) ? std::max(logprob, -9999.0) : -9999.0;
}

std::string token_key(const std::string& bytes, bool by_bytes = false) {
  if (!by_bytes && find_invalid_utf8(bytes) == std::string_view::npos) return bytes;
  std::string key = "bytes:";
  for (const char c : bytes) key += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return key;
}

// By token. Two may have the same bytes ("A", and the one that stands for the byte 65): the better one has the plain name, and of the chosen one it is always that.
void add_choices(Json& top, const TokenChoices& choices) {
  const TokenLogprob& chosen = choices.front();
  const std::string chosen_key = token_key(chosen.bytes);
  for (const TokenLogprob& token : std::span(choices).subspan(1)) {
    std::string key = token_key(token.bytes);
    if (token.id != chosen.id && (key == chosen_key || top.contains(key))) key = token_key(token.bytes, true);
    top[key] = shown(token.logprob);
  }
  top[chosen_key] = shown(chosen.logprob);
}

Json chat_token(const TokenLogprob& token) {
  Json bytes = Json::array();
  for (const char c : token.bytes) bytes.push_back(static_cast<unsigned char>(c));
  return {{"token", token.bytes}, {"logprob", shown(token.logprob)}, {"bytes", std::move(bytes)}};
}

Json chat(std::span<const TokenChoices> tokens) {
  Json content = Json::array();
  for (const TokenChoices& choices : tokens) {
    Json& token = content.emplace_back(chat_token(choices.front()));
    token["top_logprobs"] = Json::array();
    for (size_t i = 1; i < choices.size(); ++i) token["top_logprobs"].push_back(chat_token(choices[i]));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json completion(std::span<const TokenChoices> tokens, int64_t& offset) {
  Json names = Json::array(), logprobs = Json::array(), tops = Json::array(), offsets = Json::array();
  for (const TokenChoices& choices : tokens) {
    names.push_back(token_key(choices.front().bytes));
    logprobs.push_back(shown(choices.front().logprob));
    Json& top = tops.emplace_back(nullptr);
    if (!std::isnan(choices.front().logprob)) add_choices(top, choices);
    offsets.push_back(std::max<int64_t>(0, offset));
    offset += characters_of(choices.front().bytes);
  }
  return {{"tokens", std::move(names)}, {"token_logprobs", std::move(logprobs)}, {"top_logprobs", std::move(tops)}, {"text_offset", std::move(offsets)}};
}

Json ranked(const TokenLogprob& token, Json rank) { return {{"logprob", shown(token.logprob)}, {"rank", std::move(rank)}, {"decoded_token", token.bytes}}; }

}  // namespace

std::string prompt_logprobs_json(std::span<const TokenChoices> tokens, int count) {
  Json list = Json::array();
  for (const TokenChoices& choices : tokens) {
    Json& entry = list.emplace_back(nullptr);
    if (choices.empty() || std::isnan(choices.front().logprob)) continue;
    entry = {{std::to_string(choices.front().id), ranked(choices.front(), nullptr)}};
    for (size_t i = 1; i < choices.size(); ++i) {
      const std::string id = std::to_string(choices[i].id);
      if (i <= static_cast<size_t>(count) || entry.contains(id)) entry[id] = ranked(choices[i], i);
    }
  }
  return list.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int64_t characters_of(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::string openai_logprobs(OpenAiKind kind, std::span<const TokenChoices> tokens, int64_t& offset) {
  const Json json = kind == OpenAiKind::kChat ? chat(tokens) : completion(tokens, offset);
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace penstock::text
