#include "data/tokenizer_info.h"

#include "base/file.h"
#include "formats/gguf_model.h"
#include "text/gguf_tokenizer.h"

namespace penstock::data {
namespace {

namespace fs = std::filesystem;

// Words, digits, white space, punctuation, other scripts: what tokenizers of one vocabulary may cut differently.
constexpr std::string_view kProbe =
    "The quick brown fox can't jump 12345 times;  it's 9.5 % too\ttired.\n\n    return x_1 + fooBar(\"ab\");\r\n"
    "Grüße, ça va? Привет мир 你好世界 こんにちは 👋🏽 e\xcc\x81 \xc2\xa0 ﬁ <|end|> [INST]";

constexpr const char* kFiles[] = {"tokenizer.json",  "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",
                                  "vocab.json",      "merges.txt",            "added_tokens.json",       "chat_template.jinja",
                                  "chat_template.json"};
constexpr size_t kFileLimit = size_t{1} << 30;

// FNV-1a of 64 bits (Fowler, Noll, Vo).
class Hash {
 public:
  void add(std::string_view bytes) {
    add(bytes.size());
    for (const char c : bytes) mix(static_cast<unsigned char>(c));
  }
  void add(uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) mix(value >> shift & 0xFF);
  }
  [[nodiscard]] uint64_t value() const { return state_; }

 private:
  void mix(uint64_t byte) { state_ = (state_ ^ byte) * 0x100000001B3ull; }
  uint64_t state_ = 0xCBF29CE484222325ull;
};

}  // namespace

TokenizerInfo describe(const text::Tokenizer& tokenizer) {
  Hash hash;
  hash.add(static_cast<uint64_t>(tokenizer.vocab_size()));
  for (int id = 0; id < tokenizer.vocab_size(); ++id) hash.add(tokenizer.bytes_of(id, text::SpecialTokens::kAsText));
  for (const int32_t id : tokenizer.encode(kProbe)) hash.add(static_cast<uint64_t>(id));
  hash.add(static_cast<uint64_t>(int64_t{tokenizer.end_id()}));
  return {tokenizer.vocab_size(), tokenizer.end_id(), hash.value()};
}

std::shared_ptr<const text::Tokenizer> open_tokenizer(const fs::path& folder) {
  if (folder.empty()) return std::make_shared<const text::Tokenizer>(text::byte_tokenizer());
  return std::make_shared<const text::Tokenizer>(text::Tokenizer::load(folder).value());
}

void copy_tokenizer_files(const fs::path& folder, const fs::path& to) {
  if (folder.empty()) return text::write_tokenizer_files(to);
  if (const auto gguf = formats::find_gguf(folder)) {
    for (const auto& [name, content] : text::tokenizer_files_of_gguf(formats::read_gguf_header(*gguf))) write_file_atomic(to / name, content);
    return;
  }
  for (const char* name : kFiles) {
    const auto bytes = read_file(folder / name, kFileLimit);
    if (bytes) {
      write_file_atomic(to / name, bytes.value());
    } else if (bytes.error().code() != Code::kNotFound) {
      throw bytes.error();
    }
  }
}

}  // namespace penstock::data
