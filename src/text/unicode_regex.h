#pragma once
// The regular expressions of tokenizer.json.
#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

#include "base/error.h"

namespace penstock::text {

// A pattern, compiled once. The files are written for Oniguruma; PCRE2 runs them, with the classes that the two define differently
// (\s, \w, \h) spelled out, and with refusals where a construct means something else to it.
//
// Threads: const; each search has a Search of its own.
class UnicodeRegex {
 public:
  // Errors (kDataLoss, kUnimplemented) start with `where` and show the pattern.
  [[nodiscard]] static Result<UnicodeRegex> compile(std::string_view pattern, const std::string& where);

  struct Match {
    size_t begin, end;  // bytes
  };

  // The memory of one search after another, for one thread at a time. REQUIRES: the regex outlives it.
  class Search {
   public:
    explicit Search(const UnicodeRegex& regex);
    // The first match at or after `from`, perhaps empty. `text` must be valid UTF-8 and `from` a start of a character.
    // Throws Error kInvalidArgument when the pattern takes more steps than a pattern for tokens may.
    [[nodiscard]] std::optional<Match> next(std::string_view text, size_t from);

   private:
    struct Free {
      void operator()(void* data) const;
    };
    [[nodiscard]] int match(std::string_view text, size_t from);
    const UnicodeRegex& regex_;
    std::unique_ptr<void, Free> data_;
    std::unique_ptr<void, void (*)(void*)> context_, stack_;
  };

 private:
  explicit UnicodeRegex(std::shared_ptr<const void> code) : code_(std::move(code)) {}
  std::shared_ptr<const void> code_;  // pcre2_code
};

}  // namespace penstock::text
