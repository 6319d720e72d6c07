#pragma once
// UTF-8, checked (Unicode 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF).
#include <cstddef>
#include <string>
#include <string_view>

namespace penstock {

// What must follow the first byte of a character.
struct Utf8Expectation {
  int count = 0;              // continuation bytes; -1 = no character starts with this byte
  unsigned char low = 0x80;   // range of the first of them; the others are 0x80 ... 0xBF
  unsigned char high = 0xBF;
};
[[nodiscard]] Utf8Expectation utf8_after(unsigned char first);

// Offset of the first byte that is not part of valid UTF-8; std::string_view::npos when all is valid.
[[nodiscard]] size_t find_invalid_utf8(std::string_view bytes);

// The longest start of valid UTF-8 text that is at most `limit` bytes of whole characters; for messages.
[[nodiscard]] std::string_view utf8_prefix(std::string_view text, size_t limit);

// REQUIRES: a Unicode scalar value (no surrogate, at most U+10FFFF).
void append_utf8(std::string& text, char32_t code_point);

}  // namespace penstock
