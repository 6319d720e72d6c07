#pragma once
// Which tokenizer made a text's tokens.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace penstock::data {

struct TokenizerInfo {
  int vocab_size = 0;
  int32_t end_id = -1;       // follows every document; -1 = nothing does
  uint64_t fingerprint = 0;  // of the vocabulary, and of how a fixed text is cut: equal for files that differ in layout only

  bool operator==(const TokenizerInfo&) const = default;
};

[[nodiscard]] TokenizerInfo describe(const text::Tokenizer& tokenizer);

// The byte tokenizer for an empty folder name, else that of a model (a Hugging Face directory or a GGUF file). Errors as text::Tokenizer::load.
[[nodiscard]] std::shared_ptr<const text::Tokenizer> open_tokenizer(const std::filesystem::path& folder);

// The tokenizer's files, for a model directory: copies of those in `folder`, or the byte tokenizer's for an empty name.
// Throws Error kDataLoss naming the file.
void copy_tokenizer_files(const std::filesystem::path& folder, const std::filesystem::path& to);

}  // namespace penstock::data
