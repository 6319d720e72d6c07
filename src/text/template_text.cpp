#include "text/template_text.h"

#include <algorithm>

#include "base/utf8.h"
#include "text/characters.h"

namespace penstock::text {
namespace {

template <typename Strips>
std::string_view stripped_where(std::string_view text, Strips strips, bool left, bool right) {
  while (left && !text.empty()) {
    size_t at = 0;
    if (!strips(next_character(text, at))) break;
    text.remove_prefix(at);
  }
  while (right && !text.empty()) {
    const size_t last = last_character(text);
    size_t at = last;
    if (!strips(next_character(text, at))) break;
    text = text.substr(0, last);
  }
  return text;
}

// As the first letter of a word.
void append_title(std::string& out, char32_t c) {
  if (c == 0xDF) out += "Ss";  // the sharp s
  else append_utf8(out, to_upper(c));
}

}  // namespace

std::string upper(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (c == 0xDF) out += "SS";  // the sharp s
    else append_utf8(out, to_upper(c));
  }
  return out;
}

std::string lower(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) append_lower(out, next_character(text, at));
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const char32_t c = next_character(text, at);
    if (in_word) append_lower(out, c);
    else append_title(out, c);
    in_word = is_letter(c);
  }
  return out;
}

std::string title_of_words(std::string_view text) {
  std::string out;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const char32_t c = next_character(text, at);
    if (in_word) append_lower(out, c);
    else out += upper(text.substr(begin, at - begin));
    in_word = !is_python_space(c) && std::u32string_view(U"-({[<").find(c) == std::u32string_view::npos;
  }
  return out;
}

bool is_lower(std::string_view text) { return text == lower(text) && text != upper(text); }
bool is_upper(std::string_view text) { return text == upper(text) && text != lower(text); }

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&#34;";
    else if (c == '\'') out += "&#39;";
    else out += c;
  }
  return out;
}

std::string capitalized(std::string_view text) {
  if (text.empty()) return "";
  size_t at = 0;
  std::string out;
  append_title(out, next_character(text, at));
  return out + lower(text.substr(at));
}

std::string stripped(std::string_view text, bool left, bool right) { return std::string(stripped_where(text, is_python_space, left, right)); }

std::string stripped_of(std::string_view text, std::string_view set, bool left, bool right) {
  std::u32string characters;
  for (size_t at = 0; at < set.size();) characters += next_character(set, at);
  std::sort(characters.begin(), characters.end());
  return std::string(stripped_where(text, [&](char32_t c) { return std::binary_search(characters.begin(), characters.end(), c); }, left, right));
}

std::vector<std::string> split_at(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string> parts;
  for (;;) {
    const size_t at = limit >= 0 && static_cast<int64_t>(parts.size()) >= limit ? std::string_view::npos : text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + separator.size());
  }
}

std::vector<std::string> split_at_last(std::string_view text, std::string_view separator, int64_t limit) {
  std::vector<std::string> parts;
  for (;;) {
    const size_t at = limit >= 0 && static_cast<int64_t>(parts.size()) >= limit ? std::string_view::npos : text.rfind(separator);
    if (at == std::string_view::npos) break;
    parts.emplace_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  parts.emplace_back(text);
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string> split_at_space(std::string_view text, int64_t limit) {
  std::vector<std::string> parts;
  size_t at = 0;
  const auto skip = [&](bool space) {
    while (at < text.size()) {
      size_t next = at;
      if (is_python_space(next_character(text, next)) != space) break;
      at = next;
    }
  };
  for (skip(true); at < text.size(); skip(true)) {
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.emplace_back(text.substr(at));
      break;
    }
    const size_t begin = at;
    skip(false);
    parts.emplace_back(text.substr(begin, at - begin));
  }
  return parts;
}

std::vector<std::string> split_at_space_last(std::string_view text, int64_t limit) {
  std::vector<std::string> parts = split_at_space(text, -1);
  if (limit < 0 || parts.size() <= static_cast<size_t>(limit)) return parts;
  const auto without_space = [](std::string_view from) { return stripped_where(from, is_python_space, false, true); };
  std::string_view rest = without_space(text);
  for (int64_t i = 0; i < limit; ++i) {
    const std::string& last = parts[parts.size() - 1 - static_cast<size_t>(i)];
    rest = without_space(rest.substr(0, rest.size() - last.size()));
  }
  parts.erase(parts.begin(), parts.end() - static_cast<ptrdiff_t>(limit));
  if (!rest.empty()) parts.insert(parts.begin(), std::string(rest));
  return parts;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to, int64_t limit, TemplateBudget& budget) {
  budget.spend_search(text.size(), from.size());
  std::string out;
  int64_t count = 0;
  const auto more = [&] { return limit < 0 || count < limit; };
  const auto put = [&] {
    budget.spend_bytes(to.size());
    out += to;
    ++count;
  };
  size_t at = 0;
  while (more()) {
    const size_t found = text.find(from, at);
    if (found == std::string_view::npos) break;
    out += text.substr(at, found - at);
    put();
    at = found + from.size();
    if (!from.empty()) continue;
    if (at == text.size()) return out;
    const size_t begin = at;
    (void)next_character(text, at);
    out += text.substr(begin, at - begin);
  }
  out += text.substr(std::min(at, text.size()));
  return out;
}

}  // namespace penstock::text
