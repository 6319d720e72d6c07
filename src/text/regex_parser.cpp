#include "text/regex_parser.h"

#include <optional>

#include "base/utf8.h"

namespace penstock::text {
namespace {

constexpr int kMaxGroups = 100;      // within each other
constexpr int kMaxRepeats = 10'000;

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_letter(char32_t c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

RegexNode character(CodePointSet set) { return {RegexNode::Kind::kCharacter, std::move(set), {}, 1, 1}; }

// The class of `\d` and its like; nullopt: it is none.
std::optional<CodePointSet> class_named(char32_t letter) {
  switch (letter) {
    case 'd': return CodePointSet{{'0', '9'}};
    case 'D': return class_named('d')->inverse();
    case 'w': return CodePointSet{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    case 'W': return class_named('w')->inverse();
    case 's': return CodePointSet{{'\t', '\r'}, {' ', ' '}};
    case 'S': return class_named('s')->inverse();
    default: return std::nullopt;
  }
}

class Parser {
 public:
  explicit Parser(std::string_view pattern) : pattern_(pattern) {
    if (const size_t at = find_invalid_utf8(pattern); at != std::string_view::npos) {
      throw error(Code::kInvalidArgument, "expected UTF-8, found an invalid byte 0x{:02x} at byte {}", static_cast<unsigned char>(pattern[at]), at);
    }
  }

  RegexNode parse() {
    RegexNode node = choice();
    if (!at_end()) refuse("a ')' without its '('");
    return node;
  }

 private:
  [[nodiscard]] bool at_end() const { return at_ == pattern_.size(); }
  [[nodiscard]] char peek() const { return at_end() ? '\0' : pattern_[at_]; }
  [[nodiscard]] bool sees(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  bool take(std::string_view text) {
    if (!sees(text)) return false;
    at_ += text.size();
    return true;
  }
  char32_t next_character() {
    if (at_end()) refuse("an end where a character is expected");
    const auto first = static_cast<unsigned char>(pattern_[at_]);
    const int more = utf8_after(first).count;
    char32_t c = more == 0 ? first : first & (0x3F >> more);
    for (int i = 1; i <= more; ++i) c = c << 6 | (static_cast<unsigned char>(pattern_[at_ + static_cast<size_t>(i)]) & 0x3F);
    at_ += static_cast<size_t>(more) + 1;
    return c;
  }
  [[noreturn]] void refuse(std::string_view what) const { throw error(Code::kInvalidArgument, "{} at byte {}", what, at_); }
  [[noreturn]] void unsupported(std::string_view what) const { throw error(Code::kInvalidArgument, "{} at byte {} is not supported", what, at_); }

  RegexNode choice() {
    RegexNode node{RegexNode::Kind::kChoice, {}, {}, 1, 1};
    do node.children.push_back(sequence());
    while (take("|"));
    if (node.children.size() == 1) return std::move(node.children[0]);
    return node;
  }

  RegexNode sequence() {
    RegexNode node;
    while (!at_end() && peek() != '|' && peek() != ')') node.children.push_back(repeated(atom()));
    return node;
  }

  RegexNode atom() {
    if (take("^")) return {RegexNode::Kind::kTextStart, {}, {}, 1, 1};
    if (take("$")) return {RegexNode::Kind::kTextEnd, {}, {}, 1, 1};
    if (take(".")) return character(CodePointSet{{'\n', '\n'}, {'\r', '\r'}}.inverse());
    if (sees("(")) return group();
    if (sees("[")) return character(bracket());
    if (sees("\\")) return escape();
    if (sees("*") || sees("+") || sees("?")) refuse("a repetition of nothing");
    const char32_t c = next_character();
    return character({{c, c}});
  }

  RegexNode group() {
    if (++groups_ > kMaxGroups) refuse("groups nested deeper than 100");
    if (sees("(?=") || sees("(?!")) unsupported("lookahead");
    if (sees("(?<=") || sees("(?<!")) unsupported("lookbehind");
    if (sees("(?>")) unsupported("an atomic group");
    if (sees("(?P=")) unsupported("a backreference");
    if (sees("(?(")) unsupported("a condition");
    if (sees("(?P<") || sees("(?<")) {
      const size_t end = pattern_.find('>', at_);
      if (end == std::string_view::npos) refuse("a group's name without its end");
      at_ = end + 1;
    } else if (!take("(?:")) {
      if (sees("(?")) unsupported("a group that begins with '(?'");
      (void)take("(");
    }
    RegexNode node = choice();
    if (!take(")")) refuse("a group without its ')'");
    --groups_;
    return node;
  }

  RegexNode repeated(RegexNode child) {
    for (;;) {
      const size_t begin = at_;
      int min = 0, max = -1;
      if (take("*")) {
      } else if (take("+")) {
        min = 1;
      } else if (take("?")) {
        max = 1;
      } else if (!counts(min, max)) {
        return child;
      }
      if (child.kind == RegexNode::Kind::kTextStart || child.kind == RegexNode::Kind::kTextEnd) {
        at_ = begin;
        unsupported("a repetition of an anchor");
      }
      if (sees("+")) unsupported("a possessive repetition");
      (void)take("?");  // lazy: the same texts
      RegexNode node{RegexNode::Kind::kRepeat, {}, {}, min, max};
      node.children.push_back(std::move(child));
      child = std::move(node);
      if (++repeats_ > kMaxRepeats) refuse("more than 10000 repetitions");
    }
  }

  // {n}, {n,}, {n,m}; a '{' that begins none of them is a character.
  bool counts(int& min, int& max) {
    const size_t begin = at_;
    if (!take("{")) return false;
    const auto low = number();
    max = low.value_or(0);
    bool whole = low.has_value();
    if (whole && take(",")) {
      max = -1;
      if (peek() != '}') {
        const auto high = number();
        whole = high.has_value();
        max = high.value_or(0);
      }
    }
    if (!whole || !take("}")) {
      at_ = begin;
      return false;
    }
    min = *low;
    if (max >= 0 && max < min) refuse("a repetition whose bounds are the wrong way around, before");
    return true;
  }

  std::optional<int> number() {
    int value = 0;
    const size_t begin = at_;
    for (; is_digit(static_cast<unsigned char>(peek())); ++at_) {
      value = 10 * value + (peek() - '0');
      if (value > kMaxRepeats) refuse("a repetition of more than 10000");
    }
    if (at_ == begin) return std::nullopt;
    return value;
  }

  // After a backslash: a character, or a class.
  CodePointSet escaped(bool in_bracket) {
    (void)take("\\");
    const size_t begin = at_;
    const char32_t c = next_character();
    if (auto named = class_named(c)) return *named;
    switch (c) {
      case 'n': return {{'\n', '\n'}};
      case 't': return {{'\t', '\t'}};
      case 'r': return {{'\r', '\r'}};
      case 'f': return {{'\f', '\f'}};
      case 'v': return {{'\v', '\v'}};
      case '0': if (!is_digit(static_cast<unsigned char>(peek()))) return {{0, 0}}; break;
      case 'b': if (in_bracket) return {{'\b', '\b'}}; break;
      case 'x': return hexadecimal(2);
      case 'u': return hexadecimal(4);
      default: break;
    }
    if (!is_letter(c) && !is_digit(c)) return {{c, c}};
    at_ = begin - 1;
    if (is_digit(c) || c == 'k') unsupported("a backreference");
    if (c == 'p' || c == 'P') unsupported("a Unicode property (\\p)");
    if (c == 'b' || c == 'B') unsupported("a word boundary (\\b)");
    unsupported(fmt::format("the escape \\{}", static_cast<char>(c)));
  }

  CodePointSet hexadecimal(int digits) {
    const bool braces = digits == 4 && take("{");
    char32_t value = 0;
    int read = 0;
    for (; read < (braces ? 6 : digits); ++read, ++at_) {
      const char c = peek();
      if (is_digit(static_cast<unsigned char>(c))) value = 16 * value + static_cast<char32_t>(c - '0');
      else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') value = 16 * value + static_cast<char32_t>((c | 0x20) - 'a' + 10);
      else break;
    }
    if ((braces ? read == 0 || !take("}") : read < digits) || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) refuse("an escape that is no character");
    return {{value, value}};
  }

  RegexNode escape() { return character(escaped(/*in_bracket=*/false)); }

  CodePointSet bracket() {
    (void)take("[");
    const bool opposite = take("^");
    CodePointSet set;
    for (bool first = true; first || !sees("]"); first = false) {
      if (at_end()) refuse("a class without its ']'");
      if (sees("[:") || sees("[.") || sees("[=")) unsupported("a POSIX class");
      if (sees("&&")) unsupported("an intersection of classes (&&)");
      const CodePointSet low = bracket_item();
      if (!sees("-") || sees("-]")) {
        set.add(low);
        continue;
      }
      const size_t begin = at_;
      (void)take("-");
      const CodePointSet high = bracket_item();
      const auto from = low.ranges(), to = high.ranges();
      const bool single = from.size() == 1 && to.size() == 1 && from[0].first == from[0].second && to[0].first == to[0].second;
      if (!single || from[0].first > to[0].first) {
        at_ = begin;
        refuse("a range that is none");
      }
      set.add(from[0].first, to[0].first);
    }
    (void)take("]");
    return opposite ? set.inverse() : set;
  }

  CodePointSet bracket_item() {
    if (sees("\\")) return escaped(/*in_bracket=*/true);
    const char32_t c = next_character();
    return {{c, c}};
  }

  const std::string_view pattern_;
  size_t at_ = 0;
  int groups_ = 0;
  int repeats_ = 0;
};

}  // namespace

RegexNode parse_regex(std::string_view pattern) { return Parser(pattern).parse(); }

}  // namespace penstock::text
