#pragma once
// Regular expressions of requests, parsed. For the .cpp files of this folder.
#include <string_view>
#include <vector>

#include "text/code_points.h"

namespace penstock::text {

// A part of an expression; of a repetition and of groups the parts are its children.
struct RegexNode {
  enum class Kind { kCharacter, kSequence, kChoice, kRepeat, kTextStart, kTextEnd };
  Kind kind = Kind::kSequence;
  CodePointSet set = {};                  // kCharacter: one of it
  std::vector<RegexNode> children = {};   // kRepeat: one
  int min = 1, max = 1;                   // kRepeat; max -1 = any number
};

// Literals, `.`, classes with ranges and `\d \w \s` (ASCII) and their opposites, groups, alternatives, `* + ? {n} {n,} {n,m}` and their lazy forms (which
// stand for the same texts), `^` and `$`, escapes `\n \t \r \f \v \0 \xHH \uHHHH \u{H...}` and those of punctuation.
// Throws Error kInvalidArgument: what it is that is not supported or wrong, and at which byte.
[[nodiscard]] RegexNode parse_regex(std::string_view pattern);

}  // namespace penstock::text
