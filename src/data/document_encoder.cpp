#include "data/document_encoder.h"

#include "data/chat_encoder.h"

namespace penstock::data {

DocumentEncoder::DocumentEncoder(std::shared_ptr<const text::Tokenizer> tokenizer, const std::filesystem::path& folder, const SourceOptions& options)
    : tokenizer_(std::move(tokenizer)), options_(options) {
  if (options.format == TextFormat::kChat) chat_ = std::make_unique<const ChatEncoder>(tokenizer_, folder);
}

DocumentEncoder::~DocumentEncoder() = default;

EncodedDocument DocumentEncoder::encode(RawDocument document) const {
  if (chat_ != nullptr) return chat_->encode(document);
  const std::string text = text_of(std::move(document), options_);
  if (text.empty()) return {};
  EncodedDocument encoded;
  const auto ids = tokenizer_->encode(text);
  encoded.tokens.assign(ids.begin(), ids.end());
  if (tokenizer_->end_id() >= 0) encoded.tokens.push_back(static_cast<uint32_t>(tokenizer_->end_id()));
  encoded.text_bytes = text.size();
  return encoded;
}

}  // namespace penstock::data
