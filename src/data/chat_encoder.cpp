#include "data/chat_encoder.h"

#include <algorithm>
#include <span>

#include "data/token_shard.h"
#include "text/json_input.h"

namespace penstock::data {
namespace {

using Json = nlohmann::json;
using Spans = std::vector<std::pair<size_t, size_t>>;

constexpr int kJsonDepth = 64;
constexpr size_t kMostMessages = 10000;  // each of the assistant's is rendered with all before it

text::ChatTemplate load_template(const std::filesystem::path& folder) {
  if (folder.empty()) throw error(Code::kInvalidArgument, "conversations need the chat template of a model directory; bytes have none");
  auto loaded = text::ChatTemplate::load(folder);
  if (!loaded && loaded.error().code() == Code::kNotFound) {
    throw error(Code::kInvalidArgument, "{}: conversations need a chat template: expected chat_template.jinja or a chat_template in tokenizer_config.json", folder.string());
  }
  return std::move(loaded).value();
}

Json messages_of(const RawDocument& document) {
  auto parsed = text::parse_json(document.content, document.where(), Code::kInvalidArgument, {.depth = kJsonDepth});
  if (!parsed) throw parsed.error();
  const auto wrong = [&](const std::string& expected, const Json& found) {
    return error(Code::kInvalidArgument, "{}: expected {}, found {}", document.where(), expected, text::shown(found));
  };
  if (!parsed->is_object() || !parsed->contains("messages")) throw wrong("an object with a key 'messages'", *parsed);
  Json messages = std::move((*parsed)["messages"]);
  if (!messages.is_array() || messages.empty() || messages.size() > kMostMessages) throw wrong(fmt::format("'messages' to be a list of 1 to {}", kMostMessages), messages);
  for (const Json& message : messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) throw wrong("a message with a 'role'", message);
    if (!message.contains("content") && !message.contains("tool_calls")) throw wrong(fmt::format("a message of role {} with 'content'", text::shown(message["role"])), message);
  }
  return messages;
}

bool is_assistant(const Json& message) { return message["role"] == "assistant"; }

// How many tokens `ids` begins with that are those of a part of its text, too: what comes behind them is not (wholly) of that part.
size_t common_prefix(std::span<const int32_t> ids, std::span<const int32_t> part) {
  return static_cast<size_t>(std::ranges::mismatch(ids, part).in1 - ids.begin());
}

}  // namespace

struct ChatEncoder::Rendered {
  std::string text;
  Spans assistant;  // bytes
};

ChatEncoder::ChatEncoder(std::shared_ptr<const text::Tokenizer> tokenizer, const std::filesystem::path& folder)
    : tokenizer_(std::move(tokenizer)), template_(load_template(folder)) {}

ChatEncoder::Rendered ChatEncoder::render(const RawDocument& document) const {
  const Json messages = messages_of(document);
  const auto rendered = [&](size_t count, bool prompt) {
    const Json some(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(count));
    auto result = template_.render(some.dump(), {.add_generation_prompt = prompt, .tools = {}, .variables = {}});
    if (!result) throw error(result.error().code(), "{}: {}", document.where(), result.error().message());
    return std::move(result).value();
  };
  text::RenderedChat whole = rendered(messages.size(), false);
  if (!whole.generated.empty()) return {std::move(whole.text), std::move(whole.generated)};

  Spans spans;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (!is_assistant(messages[i])) continue;
    const std::string before = rendered(i, true).text, through = i + 1 == messages.size() ? whole.text : rendered(i + 1, false).text;
    if (!through.starts_with(before) || !whole.text.starts_with(through)) {
      throw error(Code::kInvalidArgument, "{}: message {}: the chat template writes the messages up to here in another way when more follow, so that what the "
                  "assistant said cannot be told apart; mark it with {{% generation %}} in the template, or cut the conversation here", document.where(), i + 1);
    }
    size_t end = through.size();
    while (end > before.size() && std::string_view(" \n\r\t").find(through[end - 1]) != std::string_view::npos) --end;
    spans.emplace_back(before.size(), end);
  }
  if (spans.empty()) throw error(Code::kInvalidArgument, "{}: expected a message of role \"assistant\" to learn from, found none", document.where());
  return {std::move(whole.text), std::move(spans)};
}

EncodedDocument ChatEncoder::encode(const RawDocument& document) const {
  const Rendered rendered = render(document);
  const text::EncodeOptions options{.add_special_tokens = false, .parse_special_tokens = true};  // the template writes them
  const std::vector<int32_t> ids = tokenizer_->encode(rendered.text, options);
  EncodedDocument encoded;
  for (const int32_t id : ids) encoded.tokens.push_back(static_cast<uint32_t>(id) | kNoTarget);
  encoded.text_bytes = rendered.text.size();
  const auto tokens_up_to = [&](size_t byte) { return common_prefix(ids, tokenizer_->encode(std::string_view(rendered.text).substr(0, byte), options)); };
  for (const auto& [begin, end] : rendered.assistant) {
    for (size_t i = tokens_up_to(begin), last = tokens_up_to(end); i < last; ++i) encoded.tokens[i] &= ~kNoTarget;
  }
  return encoded;
}

}  // namespace penstock::data
