#pragma once
// What a message repeats of a text from outside.
#include <string>
#include <string_view>

namespace penstock {

// The text; of one that is longer than 128 bytes its beginning, in whole characters, and "...".
[[nodiscard]] std::string shown(std::string_view text);

}  // namespace penstock
