#pragma once
// A conversation as tokens, of which only those that the assistant said are predicted.
#include <memory>

#include "data/document_encoder.h"
#include "text/chat_template.h"

namespace penstock::data {

// Renders {"messages": [{"role", "content"}, …]} by the chat template of a model directory. What the assistant said is told in one of two ways:
// the template marks it ({% generation %}), or the rendered text up to a turn is the beginning of the whole text. Then a turn of the assistant goes
// from the end of what a prompt for it would be to the end of its message; white space behind it is not part of it.
//
// Threads: const and shared freely.
class ChatEncoder {
 public:
  // `folder`: the model directory. Throws Error kInvalidArgument when it has no chat template.
  ChatEncoder(std::shared_ptr<const text::Tokenizer> tokenizer, const std::filesystem::path& folder);
  // Throws Error kInvalidArgument FILE:LINE: no JSON object with messages, a message without role or content, no message of the assistant's, what
  // the template refuses, or a template whose text changes when more messages follow.
  [[nodiscard]] EncodedDocument encode(const RawDocument& document) const;

 private:
  struct Rendered;
  [[nodiscard]] Rendered render(const RawDocument& document) const;

  std::shared_ptr<const text::Tokenizer> tokenizer_;
  text::ChatTemplate template_;
};

}  // namespace penstock::data
