#pragma once
// Byte pair encoding by an ordered list of merges, as in tokenizer.json.
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text/flat_map.h"
#include "text/token_model.h"
#include "text/vocabulary.h"

namespace penstock::text {

struct BpeMerge {
  int32_t left, right, result;  // ids
};

struct BpeOptions {
  bool bytes = false;          // a piece starts as its bytes; else as its characters
  bool byte_fallback = false;  // a character without a token becomes the tokens <0x00> ... <0xFF> of its bytes, when all of them exist
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges would give
  bool fuse_unknown = false;   // neighbouring unknown characters become one unknown token
  int32_t unknown = kNoToken;  // kNoToken: characters without a token are dropped, as Hugging Face drops them
};

// Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units": of all neighbours that merge, those with the
// first rule in the list merge first, the leftmost of several. Equal to Hugging Face's `tokenizers` for valid UTF-8.
//
// Threads: const methods may be called from any thread at once.
class BpeModel : public TokenModel {
 public:
  // `merges` from the first rule to the last.
  BpeModel(std::shared_ptr<const Vocabulary> vocabulary, const std::vector<BpeMerge>& merges, const BpeOptions& options);
  void encode(std::string_view piece, std::vector<int32_t>& ids) const override;

 private:
  struct Rule {
    uint32_t rank = ~uint32_t{0};  // the highest one: no rule
    int32_t result = kNoToken;
  };
  [[nodiscard]] Rule rule_of(int32_t left, int32_t right) const;
  [[nodiscard]] bool words_are_independent(const std::vector<BpeMerge>& merges) const;
  void encode_word(std::string_view word, std::vector<int32_t>& ids) const;
  [[nodiscard]] bool is_whole(int32_t id) const;
  void append_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  [[nodiscard]] bool append_bytes(std::string_view character, std::vector<int32_t>& ids) const;
  [[nodiscard]] size_t merge(int32_t* ids, size_t count) const;
  [[nodiscard]] size_t merge_short(int32_t* ids, size_t count) const;
  [[nodiscard]] size_t merge_long(int32_t* ids, size_t count) const;

  const std::shared_ptr<const Vocabulary> vocabulary_;
  const BpeOptions options_;
  FlatMap<Rule> rules_;  // by left << 32 | right
  std::array<int32_t, 256> id_of_byte_;
  bool split_words_ = false;  // no merge crosses the start of a word: words are merged one by one
  // What merging a token's own text gives: itself (kWhole) or several tokens (kParts); found when first asked for. Relaxed: every thread
  // that finds it finds the same.
  mutable std::vector<std::atomic<char>> whole_;
};

}  // namespace penstock::text
