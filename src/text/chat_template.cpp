#include "text/chat_template.h"

#include <array>
#include <ctime>

#include "base/file.h"
#include "formats/gguf_model.h"
#include "text/gguf_tokenizer.h"
#include "text/json_input.h"
#include "text/json_node.h"
#include "text/template_evaluator.h"
#include "text/template_tree.h"

namespace penstock::text {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;

constexpr size_t kFileLimit = 1 << 20;       // bytes of a template
constexpr size_t kMessagesLimit = 64 << 20;  // bytes of a conversation
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token"};

std::string date_text(const std::string& format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  std::array<char, 256> text{};
  return {text.data(), std::strftime(text.data(), text.size(), format.c_str(), &local)};
}

// JSON with its keys in order. Throws Error kInvalidArgument.
TemplateValue parse_ordered(std::string_view text, const char* what, bool list) {
  if (text.size() > kMessagesLimit) throw error(Code::kInvalidArgument, "{}: expected at most {} bytes, found {}", what, kMessagesLimit, text.size());
  const Result<OrderedJson> json = parse_ordered_json(text, what, Code::kInvalidArgument, 32);
  if (list ? !json.value().is_array() : !json.value().is_object()) {
    throw error(Code::kInvalidArgument, "{}: expected {}, found {}", what, list ? "a list" : "an object", json.value().type_name());
  }
  return TemplateValue::from_json(json.value());
}

TemplateValue value_of(const std::vector<ChatMessage>& messages) {
  std::vector<TemplateValue> list;
  for (const ChatMessage& message : messages) {
    list.push_back(TemplateValue::dict({{TemplateValue::text("role"), TemplateValue::text(message.role)},
                                        {TemplateValue::text("content"), TemplateValue::text(message.content)}}));
  }
  return TemplateValue::list(std::move(list));
}

RenderedChat render_value(const std::vector<TemplateStatement>& statements, const std::map<std::string, std::string>& special_tokens, TemplateValue messages,
                          const ChatOptions& options) {
  TemplateEvaluator::Variables variables;
  for (const auto& [name, token] : special_tokens) variables[name] = TemplateValue::text(token);
  variables["messages"] = std::move(messages);
  variables["add_generation_prompt"] = TemplateValue::boolean(options.add_generation_prompt);
  variables["tools"] = options.tools.empty() ? TemplateValue::none() : parse_ordered(options.tools, "tools", /*list=*/true);
  variables["documents"] = TemplateValue::none();
  if (!options.variables.empty()) {
    const TemplateValue further = parse_ordered(options.variables, "the template's variables", /*list=*/false);
    for (const auto& [key, value] : further.as_dict()) {
      const std::string& name = key.as_text();
      const bool is_free = !variables.contains(name) || name == "documents" || (name == "tools" && options.tools.empty());
      if (!is_free) throw error(Code::kInvalidArgument, "the template's variables: '{}' is set by the conversation or the model; expected another name", name);
      variables[name] = value;
    }
  }
  TemplateEvaluator evaluator(std::move(variables), {}, date_text);
  evaluator.run(statements);
  return {evaluator.take_output(), evaluator.take_generated()};
}

// "chat_template" is a text, or a list of {"name", "template"}.
std::string template_of(const JsonNode& node) {
  if (node.is_string()) return node.text();
  for (size_t i = 0, count = node.list_size(); i < count; ++i) {
    if (node[i]["name"].text() == "default") return node[i]["template"].text();
  }
  throw node.wrong("a template called \"default\"");
}

struct Source {
  std::string text;
  std::map<std::string, std::string> special_tokens;
};

Source read_gguf_source(const fs::path& file) {
  const formats::GgufHeader header = formats::read_gguf_header(file);
  const std::string* source = header.text("tokenizer.chat_template");
  if (source == nullptr) throw error(Code::kNotFound, "{}: expected tokenizer.chat_template in its metadata, found none", file.string());
  return {*source, special_tokens_of_gguf(header)};
}

Source read_folder_source(const fs::path& folder) {
  const fs::path config_file = folder / "tokenizer_config.json";
  Result<nlohmann::json> config = read_json_file(config_file);
  if (!config && config.error().code() != Code::kNotFound) throw config.error();
  const nlohmann::json document = config ? std::move(*config) : nlohmann::json::object();
  const JsonNode root(document, config_file.string());
  Source source;
  for (const char* name : kSpecialTokens) {
    const JsonNode token = root[name].is_object() ? root[name]["content"] : root[name];
    if (token) source.special_tokens[name] = token.text();
  }
  Result<std::string> file = read_file(folder / "chat_template.jinja", kFileLimit);
  if (!file && file.error().code() != Code::kNotFound) throw file.error();
  if (!file && !root["chat_template"]) {
    throw error(Code::kNotFound, "{}: expected chat_template.jinja, or a chat_template in tokenizer_config.json; found neither", folder.string());
  }
  source.text = file ? *file : template_of(root["chat_template"]);
  return source;
}

Source read_source(const fs::path& model) {
  const auto gguf = formats::find_gguf(model);
  return gguf ? read_gguf_source(*gguf) : read_folder_source(model);
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, std::map<std::string, std::string> special_tokens) {
  try {
    auto parsed = std::make_shared<Parsed>();
    parsed->statements = parse_template(source);
    parsed->special_tokens = std::move(special_tokens);
    return ChatTemplate(std::move(parsed));
  } catch (const Error& e) {
    return e;
  }
}

Result<std::string> ChatTemplate::source(const fs::path& model) {
  try {
    return read_source(model).text;
  } catch (const Error& e) {
    return e;
  }
}

Result<ChatTemplate> ChatTemplate::load(const fs::path& model) {
  try {
    Source source = read_source(model);
    Result<ChatTemplate> parsed = parse(source.text, std::move(source.special_tokens));
    if (!parsed) return error(parsed.error().code(), "{}: {}", model.string(), parsed.error().message());
    return parsed;
  } catch (const Error& e) {
    return e;
  }
}

Result<RenderedChat> ChatTemplate::render(const std::vector<ChatMessage>& messages, const ChatOptions& options) const {
  try {
    return render_value(parsed_->statements, parsed_->special_tokens, value_of(messages), options);
  } catch (const Error& e) {
    return e;
  }
}

Result<RenderedChat> ChatTemplate::render(std::string_view messages, const ChatOptions& options) const {
  try {
    return render_value(parsed_->statements, parsed_->special_tokens, parse_ordered(messages, "messages", /*list=*/true), options);
  } catch (const Error& e) {
    return e;
  }
}

}  // namespace penstock::text
