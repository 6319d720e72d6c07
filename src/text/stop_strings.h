#pragma once
// Ends a text at the first of several stop strings, while it streams.
#include <string>
#include <string_view>
#include <vector>

namespace penstock::text {

// Holds back what may be the start of a stop string, so that nothing is shown that would have to be taken back.
// The match that ends first counts; of several that end together, the longest. How the text is cut into feeds does not matter.
//
// Threads: one matcher belongs to one thread at a time.
class StopStrings {
 public:
  // REQUIRES: no stop string is empty. None at all is fine: everything passes at once.
  explicit StopStrings(std::vector<std::string> stops);

  // The text that is safe to show: with what was shown before, all up to the held-back part, or all before the match.
  // After a match always empty. Pieces of whole characters give whole characters.
  [[nodiscard]] std::string feed(std::string_view piece);
  // The held-back part, when the text ends without a match.
  [[nodiscard]] std::string flush();
  [[nodiscard]] bool matched() const { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> fallback;  // KMP: longest proper border of each prefix
    size_t length = 0;             // bytes matched so far
  };
  std::vector<Pattern> patterns_;
  std::string held_;
  bool matched_ = false;
};

}  // namespace penstock::text
