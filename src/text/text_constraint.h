#pragma once
// What a generated text must be.
#include <string>

#include "base/error.h"

namespace penstock::text {

class Grammar;

struct TextConstraint {
  enum class Kind { kNone, kJsonObject, kJsonSchema, kRegex, kChoice };
  Kind kind = Kind::kNone;
  std::string source = {};  // the schema; the pattern, which the whole text matches; a JSON list of texts

  auto operator<=>(const TextConstraint&) const = default;
  explicit operator bool() const { return kind != Kind::kNone; }
};

// Pure, in bounded time. Error kInvalidArgument: what is wrong or not supported, and where in the source; a constraint that no text or only the empty
// one fits; one that is too large (grammar.h).
[[nodiscard]] Result<Grammar> constraint_grammar(const TextConstraint& constraint);

}  // namespace penstock::text
