#pragma once
// Regular expressions as parts of a grammar. For the .cpp files of this folder.
#include <string_view>

#include "text/code_points.h"
#include "text/grammar.h"

namespace penstock::text {

inline constexpr size_t kMaxPatternBytes = 8192;

// A text that the pattern matches as a whole, or one that has a match in it.
enum class RegexMatch { kWhole, kSearch };

// From `from` to the state that it answers. Throws Error kInvalidArgument: what parse_regex() refuses, an anchor elsewhere than at the ends of an
// alternative, a pattern that is too long or takes too many states.
[[nodiscard]] GrammarBuilder::State add_regex(GrammarBuilder& grammar, GrammarBuilder::State from, std::string_view pattern, RegexMatch match, Spelling spelling);

}  // namespace penstock::text
