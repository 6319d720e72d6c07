#pragma once
// Tokens that are found in a text as they are written, before anything else happens to it.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/flat_map.h"

namespace penstock::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;       // not empty
  bool special = false;      // one that steers, such as the end of a turn
  bool single_word = false;  // only where no word character is next to it
  bool left_strip = false;   // takes the white space before it too
  bool right_strip = false;  // and behind it
};

// Finds, at each place from left to right, the longest token that is written there.
//
// Threads: const methods may be called from any thread at once.
class AddedTokens {
 public:
  // Of two with the same content, the later one counts.
  void add(AddedToken token);
  [[nodiscard]] bool empty() const { return tokens_.empty(); }
  // A special token is written at this place, the longest or not.
  [[nodiscard]] bool special_at(std::string_view text, size_t at) const;

  // Cuts `text`: `take_text(begin, end)` for each part without a token (never empty), `take_token(id)` for each token, in their order.
  // Special tokens count as text unless `special`.
  template <typename TakeText, typename TakeToken>
  void split(std::string_view text, bool special, TakeText take_text, TakeToken take_token) const {
    size_t done = 0;
    Found found;
    for (size_t at = 0; find(text, at, special, done, found); at = found.resume) {
      if (found.begin > done) take_text(done, found.begin);
      take_token(tokens_[found.token].id);
      done = found.end;
    }
    if (done < text.size()) take_text(done, text.size());
  }

 private:
  struct Found {
    size_t token, begin, end, resume;
  };
  [[nodiscard]] bool find(std::string_view text, size_t at, bool special, size_t done, Found& found) const;
  [[nodiscard]] size_t longest_at(std::string_view text, size_t at, size_t& end) const;

  std::vector<AddedToken> tokens_;
  FlatMap<uint32_t> children_;           // node << 8 | byte -> node; node 0 is the root
  std::vector<size_t> token_of_node_ = {kNone};
  std::vector<bool> starts_ = std::vector<bool>(256);  // bytes that tokens start with
  static constexpr size_t kNone = ~size_t{0};
};

}  // namespace penstock::text
