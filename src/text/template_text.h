#pragma once
// What Python does to texts. For the .cpp files of this folder.
#include <string>
#include <string_view>
#include <vector>

#include "text/template_builtins.h"

namespace penstock::text {

[[nodiscard]] std::string upper(std::string_view text);
[[nodiscard]] std::string lower(std::string_view text);
[[nodiscard]] std::string title(std::string_view text);        // each word starts large
[[nodiscard]] std::string title_of_words(std::string_view text);  // Jinja's own: words are what white space, '-' and open brackets part
[[nodiscard]] bool is_lower(std::string_view text);  // it has letters of two sizes, all of them small
[[nodiscard]] bool is_upper(std::string_view text);
[[nodiscard]] std::string escaped(std::string_view text);  // & < > " ' as HTML writes them
[[nodiscard]] std::string capitalized(std::string_view text);  // the text starts large, the rest is small

// Without white space, or without any of the characters of `set`, at the sides that are asked for.
[[nodiscard]] std::string stripped(std::string_view text, bool left, bool right);
[[nodiscard]] std::string stripped_of(std::string_view text, std::string_view set, bool left, bool right);

// At most `limit` cuts; < 0: all.
[[nodiscard]] std::vector<std::string> split_at(std::string_view text, std::string_view separator, int64_t limit);
[[nodiscard]] std::vector<std::string> split_at_last(std::string_view text, std::string_view separator, int64_t limit);
[[nodiscard]] std::vector<std::string> split_at_space(std::string_view text, int64_t limit);
[[nodiscard]] std::vector<std::string> split_at_space_last(std::string_view text, int64_t limit);

// The first `limit` places where `from` stands; < 0: all. An empty `from` stands between all characters.
[[nodiscard]] std::string replaced(std::string_view text, std::string_view from, std::string_view to, int64_t limit, TemplateBudget& budget);

}  // namespace penstock::text
