#pragma once
// A document as tokens.
#include <cstdint>
#include <vector>

#include "data/document_reader.h"
#include "data/tokenizer_info.h"

namespace penstock::data {

struct EncodedDocument {
  std::vector<uint32_t> tokens;  // followed by the end token where the tokenizer has one; kNoTarget set on context; empty for an empty document
  uint64_t text_bytes = 0;       // of the text that the tokens stand for
};

class ChatEncoder;

// Threads: const and shared freely.
class DocumentEncoder {
 public:
  // `folder`: the tokenizer's; conversations are rendered by the chat template in it. Throws Error kInvalidArgument when it has none.
  DocumentEncoder(std::shared_ptr<const text::Tokenizer> tokenizer, const std::filesystem::path& folder, const SourceOptions& options);
  ~DocumentEncoder();
  // Throws Error kInvalidArgument FILE:LINE for a document that is not what its format says.
  [[nodiscard]] EncodedDocument encode(RawDocument document) const;

 private:
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  const SourceOptions options_;
  std::unique_ptr<const ChatEncoder> chat_;
};

}  // namespace penstock::data
