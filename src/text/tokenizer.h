#pragma once
// Text to token ids and back, as the files of a Hugging Face directory describe it.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/utf8_stream.h"

namespace penstock::text {

struct TokenizerParts;

// Special tokens steer: ends of texts and turns, padding.
enum class SpecialTokens { kSkip, kAsText };

// Stands for nothing where special tokens are parsed, and no token reaches over it: U+FDD0, a noncharacter.
inline constexpr std::string_view kTokenBreak = "\xEF\xB7\x90";

struct EncodeOptions {
  bool add_special_tokens = false;    // those that the model expects around a text, for example <s> before it
  bool parse_special_tokens = false;  // those that are written in the text become their ids (Hugging Face's default); else they are plain
                                      // text, so that what a user typed cannot end a turn
};

// Threads: const and shared freely after construction. Copies are cheap; they share what they know.
class Tokenizer {
 public:
  // Reads that of a model: of a GGUF file (formats/gguf_model.h) the one in its metadata; of a Hugging Face directory tokenizer.json (BPE and
  // unigram), and of tokenizer_config.json and special_tokens_map.json which tokens begin and end a text; without one tokenizer.model
  // (SentencePiece, unigram and BPE). The ids are exactly those of Hugging Face's `tokenizers` and of `sentencepiece`.
  // Errors: kNotFound; kDataLoss (broken JSON, ids twice, tokens that are missing) and kUnimplemented, naming the file, the key and the part.
  [[nodiscard]] static Result<Tokenizer> load(const std::filesystem::path& model);

  // `text` should be UTF-8. Byte-level tokenizers keep bytes that are none; others take U+FFFD for them.
  // Throws Error kInvalidArgument when the tokenizer's own regular expression takes too many steps for this text; no sound one does.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  // As encode(), appended to `ids`.
  void encode_to(std::string_view text, const EncodeOptions& options, std::vector<int32_t>& ids) const;

  // The text with kTokenBreak inside each special token that is written in it, so that it stays plain text within a prompt whose other special
  // tokens are parsed. REQUIRES: UTF-8.
  [[nodiscard]] std::string guarded(std::string_view text) const;

  // The bytes that the id stands for in the middle of a text, which need not be whole characters (StreamDecoder joins them); valid while
  // the tokenizer or a copy lives. Empty for a special token (unless asked for as text) and for an id that is none.
  [[nodiscard]] std::string_view bytes_of(int32_t id, SpecialTokens special = SpecialTokens::kSkip) const;

  // The whole text of `ids`, valid UTF-8 with U+FFFD for what is none. No clean-up of spaces.
  [[nodiscard]] std::string decode(std::span<const int32_t> ids, SpecialTokens special = SpecialTokens::kSkip) const;

  // The highest id + 1. There may be ids without a token below it.
  [[nodiscard]] int vocab_size() const;
  // The tokens that begin and end a text; -1 when the model has none.
  [[nodiscard]] int32_t begin_id() const;
  [[nodiscard]] int32_t end_id() const;
  // All at which the model ends a text: end_id(), those of generation_config.json or config.json, a GGUF file's ends of turns and messages.
  [[nodiscard]] std::span<const int32_t> end_ids() const;
  // The id of a token as the files write it, such as "<|im_end|>"; -1 when there is none.
  [[nodiscard]] int32_t id_of(std::string_view token) const;
  [[nodiscard]] bool is_special(int32_t id) const;

 private:
  friend class StreamDecoder;
  friend Tokenizer byte_tokenizer();
  explicit Tokenizer(std::shared_ptr<TokenizerParts> parts);
  void encode_valid(std::string_view text, bool special, std::vector<int32_t>& ids) const;

  std::shared_ptr<const TokenizerParts> parts_;
};

// Token ids in, text out, as it becomes certain: all pieces together are what decode() gives.
//
// Threads: one decoder belongs to one thread at a time.
class StreamDecoder {
 public:
  // `at_start`: the ids begin a text, where some tokenizers leave out the space of the first word. False for ids that continue one.
  explicit StreamDecoder(Tokenizer tokenizer, SpecialTokens special = SpecialTokens::kSkip, bool at_start = true);

  // The text that became certain; always whole characters, may be empty.
  [[nodiscard]] std::string feed(int32_t id);
  // Ends the text: U+FFFD for an unfinished character, else nothing.
  [[nodiscard]] std::string flush();

 private:
  Tokenizer tokenizer_;
  SpecialTokens special_;
  bool at_start_;
  int strips_left_ = 0;  // spaces that the start may still lose
  Utf8Stream characters_;
};

// 257 tokens: ids 0 ... 255 are the byte values, 256 is "<|end|>", the end of a document.
[[nodiscard]] Tokenizer byte_tokenizer();

// Writes the byte tokenizer as Hugging Face files that `tokenizers` and `transformers` load: tokenizer.json, tokenizer_config.json,
// special_tokens_map.json. Throws Error kDataLoss when a file cannot be written.
void write_tokenizer_files(const std::filesystem::path& folder);

// The files of `folder` that describe its tokenizer and chat template, by name: what must go along when a model is written elsewhere.
// Throws Error kNotFound when there are none.
[[nodiscard]] std::vector<std::filesystem::path> tokenizer_files(const std::filesystem::path& folder);

}  // namespace penstock::text
