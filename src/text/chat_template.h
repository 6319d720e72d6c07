#pragma once
// Conversations as the text that a model was trained on: the Jinja templates of Hugging Face directories.
#include <cstddef>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace penstock::text {

struct TemplateStatement;

struct ChatMessage {
  std::string role;  // "system", "user", "assistant", "tool"
  std::string content;
};

struct ChatOptions {
  bool add_generation_prompt = false;  // end with what starts the assistant's turn
  std::string tools = {};              // a JSON list of tools; empty = none
  std::string variables = {};          // a JSON object of further variables, such as {"enable_thinking": false}; empty = none
};

struct RenderedChat {
  std::string text;
  // The parts that the template marks as the assistant's by {% generation %}, begin and end in bytes; most templates mark none.
  std::vector<std::pair<size_t, size_t>> generated;
};

// A template, parsed once: the subset of Jinja 3 that chat templates use, with white space as `transformers` sets it (trim_blocks and
// lstrip_blocks) and its functions raise_exception and strftime_now. No access to anything outside the conversation; 5 million steps, 16 MiB
// of output, macros 16 deep.
//
// Threads: const and shared freely after construction. Copies are cheap.
class ChatTemplate {
 public:
  // `special_tokens` become variables: bos_token, eos_token, ... `tool_source`, if not empty, renders the conversations that have tools.
  // Errors: kDataLoss (broken) and kUnimplemented (outside the subset), naming the construct and its line.
  [[nodiscard]] static Result<ChatTemplate> parse(std::string_view source, std::map<std::string, std::string> special_tokens, std::string_view tool_source = {});
  // The template of a model. Of a Hugging Face directory: chat_template.jinja, else "chat_template" of tokenizer_config.json (of several, the one
  // called "default"), with the special tokens of tokenizer_config.json or special_tokens_map.json; of a GGUF file (formats/gguf_model.h) that of its
  // metadata. Where there is one called "tool_use" too, it renders the conversations that have tools. kNotFound when there is none.
  [[nodiscard]] static Result<ChatTemplate> load(const std::filesystem::path& model);
  // Its text alone; `for_tools`: of the one that renders conversations with tools.
  [[nodiscard]] static Result<std::string> source(const std::filesystem::path& model, bool for_tools = false);

  // Errors: kInvalidArgument (what the template raises, in its own words; a value that does not fit, naming the line; limits),
  // kUnimplemented (a filter, test or method outside the subset, naming it and the line).
  [[nodiscard]] Result<RenderedChat> render(const std::vector<ChatMessage>& messages, const ChatOptions& options = {}) const;
  // `messages`: a JSON list of objects with whatever keys the template knows, such as "role", "content", "tool_calls".
  [[nodiscard]] Result<RenderedChat> render(std::string_view messages, const ChatOptions& options = {}) const;

 private:
  struct Parsed {
    std::vector<TemplateStatement> statements, tool_statements;  // the latter empty: as the former
    std::map<std::string, std::string> special_tokens;
  };
  explicit ChatTemplate(std::shared_ptr<const Parsed> parsed) : parsed_(std::move(parsed)) {}
  std::shared_ptr<const Parsed> parsed_;
};

}  // namespace penstock::text
