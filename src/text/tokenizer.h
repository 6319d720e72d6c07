#pragma once
// Text to token ids and back. Byte-level models so far: one token a byte, and special tokens.
#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::text {

enum class SpecialTokens { kSkip, kAsText };

// Threads: const and shared freely after construction.
class Tokenizer {
 public:
  // Reads tokenizer.json and (where present) tokenizer_config.json of a Hugging Face directory.
  // Errors: kNotFound; kDataLoss (broken JSON, ids twice or missing); kUnimplemented naming the part that we cannot do yet, e.g. "merges".
  [[nodiscard]] static Result<Tokenizer> load(const std::filesystem::path& folder);

  // One id a byte. Special tokens written in the text are text. Any bytes are allowed.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text) const;

  // The bytes that the id stands for, which need not be whole characters (utf8_stream.h joins them); valid while the tokenizer lives.
  // Empty for a special token (unless asked for as text) and for an id that is none.
  [[nodiscard]] std::string_view bytes_of(int32_t id, SpecialTokens special = SpecialTokens::kSkip) const;

  [[nodiscard]] int vocab_size() const { return static_cast<int>(tokens_.size()); }
  // The token that ends a text; -1 when the model has none.
  [[nodiscard]] int32_t end_id() const { return end_id_; }

 private:
  friend class TokenizerReader;
  friend Tokenizer byte_tokenizer();
  struct Token {
    std::string bytes;
    bool special = false;
  };
  Tokenizer() = default;
  std::vector<Token> tokens_;              // by id
  std::array<int32_t, 256> id_of_byte_{};  // by byte value
  int32_t end_id_ = -1;
};

// 257 tokens: ids 0 ... 255 are the byte values, 256 is "<|end|>", the end of a document.
[[nodiscard]] Tokenizer byte_tokenizer();

// Writes the byte tokenizer as Hugging Face files that `tokenizers` and `transformers` load: tokenizer.json, tokenizer_config.json,
// special_tokens_map.json. Throws Error kDataLoss when a file cannot be written.
void write_tokenizer_files(const std::filesystem::path& folder);

}  // namespace penstock::text
