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

// Threads: const and shared freely.
class DocumentEncoder {
 public:
  DocumentEncoder(std::shared_ptr<const text::Tokenizer> tokenizer, const SourceOptions& options);
  // Throws Error kInvalidArgument FILE:LINE for a document that is not what its format says.
  [[nodiscard]] EncodedDocument encode(RawDocument document) const;

 private:
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  const SourceOptions options_;
};

}  // namespace penstock::data
