#pragma once
// SentencePiece's normalization: rules in a compiled table, and what it does to spaces.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_trie.h"

namespace penstock::text {

// A table of texts and what they become ("precompiled_charsmap"): a double array of 32-bit units (the format of darts-clone), then texts
// that end with a zero byte.
//
// Threads: const methods may be called from any thread at once.
class Charsmap {
 public:
  // An empty table has no rules. Throws Error kDataLoss starting with `where`. Whatever its units say, lookups stay inside the table.
  Charsmap(std::string_view table, const std::string& where);

  struct Match {
    size_t length = 0;  // 0: no rule
    std::string_view replacement;
  };
  // The longest rule that `text` starts with, and the shortest.
  [[nodiscard]] Match longest(std::string_view text) const { return find(text, /*first=*/false); }
  [[nodiscard]] Match shortest(std::string_view text) const { return find(text, /*first=*/true); }

 private:
  [[nodiscard]] Match find(std::string_view text, bool first) const;

  std::vector<uint32_t> units_;
  std::string texts_;
};

struct SpaceRules {
  bool add_dummy_prefix = true;     // a word symbol before the text
  bool remove_extra_spaces = true;  // at both ends, and all but one in between
  bool escape_spaces = true;        // spaces become word symbols, U+2581
  bool symbol_behind = false;       // the dummy goes behind the text
};

// What Hugging Face's normalizer "Precompiled" makes of the same table, which is not quite what SentencePiece does: a cluster of characters of
// less than 6 bytes becomes what the shortest rule it starts with says; else each of its characters by itself.
[[nodiscard]] std::string normalize_clusters(std::string_view text, const Charsmap& rules);

// The text that SentencePiece's models see. `symbols`: pieces that stay as they are.
[[nodiscard]] std::string normalize_sentence(std::string_view text, const Charsmap& rules, const SpaceRules& spaces, const PieceTrie& symbols);

}  // namespace penstock::text
