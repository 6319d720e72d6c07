#pragma once
// How a normalized text is cut into the pieces that a token never spans.
#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "text/unicode_regex.h"

namespace penstock::text {

// Parts of a text. Where a step changed the characters, `owned` holds the new ones; a deque, so that the views stay valid.
struct Pieces {
  std::vector<std::string_view> views;
  std::deque<std::string> owned;
};

// What happens to the parts that a pattern matched; the names are those of tokenizer.json.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// When a word symbol goes before a text that does not start with one.
enum class PrependScheme { kAlways, kFirst, kNever };

// Part of a text that matched a pattern, or lies between two matches. Never empty, except in an empty text.
struct Span {
  size_t begin, end;
  bool matched;
};
using Pattern = std::function<std::vector<Span>(std::string_view text)>;

[[nodiscard]] Pattern pattern_of(UnicodeRegex regex);
[[nodiscard]] Pattern pattern_of(std::string literal);                // not empty
[[nodiscard]] Pattern pattern_of(std::function<bool(char32_t)> wanted);  // each such character

// A list of steps, each cutting every piece further.
//
// Threads: const methods may be called from any thread at once.
class PreTokenizer {
 public:
  void add_split(Pattern pattern, SplitBehavior behavior, bool invert = false);
  // A space before every piece that does not start with one.
  void add_prefix_space();
  // Spaces become `symbol`, which also goes before the text (by `scheme`), and, if `split`, each symbol starts a piece.
  void add_metaspace(std::string symbol, PrependScheme scheme, bool split);

  // Leaves the pieces of `text`, none of them empty, in `pieces`. `first`: the text is the start of what is encoded.
  void split(std::string_view text, bool first, Pieces& pieces) const;

 private:
  using Step = std::function<void(bool first, Pieces& pieces)>;
  std::vector<Step> steps_;
};

}  // namespace penstock::text
