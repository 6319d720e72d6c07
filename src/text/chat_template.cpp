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

template <typename Parsed>
RenderedChat render_value(const Parsed& parsed, TemplateValue messages, const ChatOptions& options) {
  TemplateEvaluator::Variables variables;
  for (const auto& [name, token] : parsed.special_tokens) variables[name] = TemplateValue::text(token);
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
  const bool by_tool_template = variables["tools"].truth() && !parsed.tool_statements.empty();
  TemplateEvaluator evaluator(std::move(variables), {}, date_text);
  evaluator.run(by_tool_template ? parsed.tool_statements : parsed.statements);
  return {evaluator.take_output(), evaluator.take_generated()};
}

struct Source {
  std::string text, tool_text;
  std::map<std::string, std::string> special_tokens;
};

// "chat_template" is a text, or a list of {"name", "template"}.
void take_templates(const JsonNode& node, Source& source) {
  if (node.is_string()) {
    source.text = node.text();
    return;
  }
  bool has_default = false;
  for (size_t i = 0, count = node.list_size(); i < count; ++i) {
    const std::string name = node[i]["name"].text();
    has_default |= name == "default";
    if (name == "default") source.text = node[i]["template"].text();
    if (name == "tool_use") source.tool_text = node[i]["template"].text();
  }
  if (!has_default) throw node.wrong("a template called \"default\"");
}

// Adds those of the file that are not there yet.
void take_special_tokens(const JsonNode& root, std::map<std::string, std::string>& tokens) {
  for (const char* name : kSpecialTokens) {
    const JsonNode token = root[name].is_object() ? root[name]["content"] : root[name];
    if (token) tokens.emplace(name, token.text());
  }
}

Result<std::string> read_template(const fs::path& file) {
  Result<std::string> text = read_file(file, kFileLimit);
  if (!text && text.error().code() != Code::kNotFound) throw text.error();
  return text;
}

Source read_gguf_source(const fs::path& file) {
  const formats::GgufHeader header = formats::read_gguf_header(file);
  const std::string* source = header.text("tokenizer.chat_template");
  if (source == nullptr) throw error(Code::kNotFound, "{}: expected tokenizer.chat_template in its metadata, found none", file.string());
  const std::string* tool_source = header.text("tokenizer.chat_template.tool_use");
  return {*source, tool_source == nullptr ? "" : *tool_source, special_tokens_of_gguf(header)};
}

Source read_folder_source(const fs::path& folder) {
  const fs::path config_file = folder / "tokenizer_config.json";
  Result<nlohmann::json> config = read_json_file(config_file);
  if (!config && config.error().code() != Code::kNotFound) throw config.error();
  const nlohmann::json document = config ? std::move(*config) : nlohmann::json::object();
  const JsonNode root(document, config_file.string());
  Source source;
  take_special_tokens(root, source.special_tokens);
  const Result<nlohmann::json> map = read_json_file(folder / "special_tokens_map.json");
  if (!map && map.error().code() != Code::kNotFound) throw map.error();
  if (map) take_special_tokens(JsonNode(map.value(), (folder / "special_tokens_map.json").string()), source.special_tokens);
  const Result<std::string> file = read_template(folder / "chat_template.jinja");
  if (!file && !root["chat_template"]) {
    throw error(Code::kNotFound, "{}: expected chat_template.jinja, or a chat_template in tokenizer_config.json; found neither", folder.string());
  }
  if (!file) {
    take_templates(root["chat_template"], source);
    return source;
  }
  source.text = file.value();
  const Result<std::string> tool_file = read_template(folder / "additional_chat_templates" / "tool_use.jinja");
  if (tool_file) source.tool_text = tool_file.value();
  return source;
}

Source read_source(const fs::path& model) {
  const auto gguf = formats::find_gguf(model);
  return gguf ? read_gguf_source(*gguf) : read_folder_source(model);
}

}  // namespace

Result<ChatTemplate> ChatTemplate::parse(std::string_view source, std::map<std::string, std::string> special_tokens, std::string_view tool_source) {
  try {
    auto parsed = std::make_shared<Parsed>();
    parsed->statements = parse_template(source);
    if (!tool_source.empty()) parsed->tool_statements = parse_template(tool_source);
    parsed->special_tokens = std::move(special_tokens);
    return ChatTemplate(std::move(parsed));
  } catch (const Error& e) {
    return e;
  }
}

Result<std::string> ChatTemplate::source(const fs::path& model, bool for_tools) {
  try {
    Source source = read_source(model);
    return for_tools && !source.tool_text.empty() ? std::move(source.tool_text) : std::move(source.text);
  } catch (const Error& e) {
    return e;
  }
}

Result<ChatTemplate> ChatTemplate::load(const fs::path& model) {
  try {
    Source source = read_source(model);
    Result<ChatTemplate> parsed = parse(source.text, std::move(source.special_tokens), source.tool_text);
    if (!parsed) return error(parsed.error().code(), "{}: {}", model.string(), parsed.error().message());
    return parsed;
  } catch (const Error& e) {
    return e;
  }
}

Result<RenderedChat> ChatTemplate::render(const std::vector<ChatMessage>& messages, const ChatOptions& options) const {
  try {
    return render_value(*parsed_, value_of(messages), options);
  } catch (const Error& e) {
    return e;
  }
}

Result<RenderedChat> ChatTemplate::render(std::string_view messages, const ChatOptions& options) const {
  try {
    return render_value(*parsed_, parse_ordered(messages, "messages", /*list=*/true), options);
  } catch (const Error& e) {
    return e;
  }
}

}  // namespace penstock::text
