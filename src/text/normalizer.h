#pragma once
// What happens to a text before it is cut into pieces.
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/unicode_regex.h"

namespace penstock::text {

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// A list of steps, each text -> text. Valid UTF-8 stays valid UTF-8.
//
// Threads: const methods may be called from any thread at once.
class Normalizer {
 public:
  void add_unicode_form(UnicodeForm form);
  void add_lowercase();
  void add_strip_accents();                          // takes marks (categories M*) out
  void add_strip(bool left, bool right);             // white space
  void add_prepend(std::string text);                // before a text that is not empty
  void add_replace(std::string from, std::string to);  // `from` is not empty
  void add_replace(UnicodeRegex from, std::string to);
  void add_step(std::function<std::string(std::string_view)> step) { steps_.push_back(std::move(step)); }

  // `storage` holds the result where it differs from `text`.
  [[nodiscard]] std::string_view normalize(std::string_view text, std::string& storage) const;
  [[nodiscard]] bool empty() const { return steps_.empty(); }

 private:
  std::vector<std::function<std::string(std::string_view)>> steps_;
};

}  // namespace penstock::text
