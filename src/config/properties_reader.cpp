#include "config/properties_reader.h"

#include <map>
#include <optional>

#include "base/utf8.h"

namespace penstock::config {
namespace {

// A line of the file's meaning: comments and blank lines gone, continued lines joined.
struct LogicalLine {
  int number;  // of its first line in the file
  std::string text;
};

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\f'; }

std::string_view without_leading_blanks(std::string_view line) {
  while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
  return line;
}

bool ends_with_odd_backslashes(std::string_view line) {
  size_t count = 0;
  while (count < line.size() && line[line.size() - 1 - count] == '\\') ++count;
  return count % 2 == 1;
}

std::vector<LogicalLine> logical_lines(std::string_view text) {
  std::vector<LogicalLine> lines;
  bool continued = false;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    line = without_leading_blanks(line);
    if (!continued && (line.empty() || line.front() == '#' || line.front() == '!')) continue;
    if (!continued) lines.push_back({number, ""});
    continued = ends_with_odd_backslashes(line);
    if (continued) line.remove_suffix(1);
    lines.back().text += line;
  }
  return lines;
}

// Four hexadecimal digits at the start of `text`.
std::optional<char32_t> hex4(std::string_view text) {
  if (text.size() < 4) return std::nullopt;
  char32_t code = 0;
  for (const char c : text.substr(0, 4)) {
    const std::string_view digits = "0123456789abcdef";
    const size_t digit = digits.find(static_cast<char>(c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c));
    if (digit == std::string_view::npos) return std::nullopt;
    code = code * 16 + static_cast<char32_t>(digit);
  }
  return code;
}

// The character of \uXXXX at the start of `rest` (after the 'u'), both halves of a surrogate pair taken together.
std::optional<char32_t> take_unicode(std::string_view& rest) {
  const auto first = hex4(rest);
  if (!first) return std::nullopt;
  rest.remove_prefix(4);
  if (*first < 0xD800 || *first > 0xDFFF) return first;
  if (*first > 0xDBFF || rest.substr(0, 2) != "\\u") return std::nullopt;
  const auto second = hex4(rest.substr(2));
  if (!second || *second < 0xDC00 || *second > 0xDFFF) return std::nullopt;
  rest.remove_prefix(6);
  return 0x10000 + ((*first - 0xD800) << 10) + (*second - 0xDC00);
}

// Reads up to the first unescaped character that `ends` accepts; nullopt for a broken \u escape.
template <typename Ends>
std::optional<std::string> take_unescaped(std::string_view& rest, Ends ends) {
  std::string out;
  while (!rest.empty() && !ends(rest.front())) {
    const char c = rest.front();
    rest.remove_prefix(1);
    if (c != '\\' || rest.empty()) {
      out += c;
      continue;
    }
    const char escaped = rest.front();
    rest.remove_prefix(1);
    if (escaped == 'u') {
      const auto code = take_unicode(rest);
      if (!code) return std::nullopt;
      append_utf8(out, *code);
    } else {
      const std::string_view names = "tnrf";
      const size_t at = names.find(escaped);
      out += at == std::string_view::npos ? escaped : "\t\n\r\f"[at];
    }
  }
  return out;
}

}  // namespace

Result<std::vector<RawValue>> parse_properties(std::string_view text, const std::string& file) {
  std::vector<RawValue> values;
  std::map<std::string, int> seen;
  for (const LogicalLine& line : logical_lines(text)) {
    std::string_view rest = line.text;
    const auto key = take_unescaped(rest, [](char c) { return is_blank(c) || c == '=' || c == ':'; });
    rest = without_leading_blanks(rest);
    if (!rest.empty() && (rest.front() == '=' || rest.front() == ':')) rest = without_leading_blanks(rest.substr(1));
    const auto value = key ? take_unescaped(rest, [](char) { return false; }) : std::nullopt;
    if (!value) return error(Code::kInvalidArgument, "{}expected \\u with the four digits of a character", place(file, line.number));
    if (key->empty()) return error(Code::kInvalidArgument, "{}expected a key before '='", place(file, line.number));
    const auto [first, is_new] = seen.emplace(*key, line.number);
    if (!is_new)
      return error(Code::kInvalidArgument, "{}key '{}' is given twice, first on line {}", place(file, line.number), key->substr(0, 128),
                   first->second);
    RawValue raw;
    raw.key = *key;
    raw.line = line.number;
    raw.items = {*value};
    values.push_back(std::move(raw));
  }
  return values;
}

}  // namespace penstock::config
