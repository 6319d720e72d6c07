#pragma once
// Unicode characters of UTF-8 text. Tables: utf8proc's.
#include <cstddef>
#include <string>
#include <string_view>

namespace penstock::text {

// The character at `at`, which moves behind it. REQUIRES: valid UTF-8, at < text.size().
[[nodiscard]] char32_t next_character(std::string_view text, size_t& at);
// The start of the last character of `text`. REQUIRES: not empty.
[[nodiscard]] size_t last_character(std::string_view text);

[[nodiscard]] bool is_white_space(char32_t c);  // property White_Space
[[nodiscard]] bool is_word(char32_t c);         // letters (ringed ones too), marks, decimal digits, connecting punctuation, joiners: \w of Rust's regex
[[nodiscard]] bool is_letter(char32_t c);       // categories L*
[[nodiscard]] bool is_mark(char32_t c);         // categories M*
[[nodiscard]] bool is_number(char32_t c);       // categories N*
[[nodiscard]] bool is_punctuation(char32_t c);  // categories P*, and the ASCII symbols
[[nodiscard]] bool is_python_space(char32_t c);  // what Python's str.strip() takes
[[nodiscard]] bool is_printable(char32_t c);     // what Python's repr() shows as it is, but for the space

[[nodiscard]] char32_t to_upper(char32_t c);
void append_lower(std::string& text, char32_t c);  // the small form, which may be two characters

}  // namespace penstock::text
