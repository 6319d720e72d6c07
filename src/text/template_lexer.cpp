#include "text/template_lexer.h"

#include <algorithm>
#include <array>

#include "base/utf8.h"
#include "text/characters.h"

namespace penstock::text {
namespace {

constexpr size_t kMaxName = 200;  // characters

std::string with_plain_line_breaks(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') out += source[i];
    else if (source.substr(i + 1, 1) != "\n") out += '\n';
  }
  if (out.ends_with('\n')) out.pop_back();  // Jinja's keep_trailing_newline is off
  return out;
}

bool starts_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  std::vector<TemplateToken> run() {
    while (at_ < source_.size()) {
      const size_t tag = next_tag();
      take_text(tag);
      if (tag == source_.size()) break;
      const char kind = source_[tag + 1];
      at_ = tag + 2;
      if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
      if (kind == '#') comment();
      else if (kind == '%' && word_of_tag(at_, "raw") != 0) raw();
      else inside(kind == '{');
    }
    add(TemplateToken::kEnd, "");
    return std::move(tokens_);
  }

 private:
  void add(TemplateToken::Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  [[nodiscard]] Error broken(const std::string& what) const { return template_error(Code::kDataLoss, line_, "{}", what); }

  [[nodiscard]] size_t next_tag() const {
    for (size_t at = source_.find('{', at_); at != std::string::npos && at + 1 < source_.size(); at = source_.find('{', at + 1)) {
      if (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#') return at;
    }
    return source_.size();
  }

  void take_text(size_t end) {
    std::string_view text = std::string_view(source_).substr(at_, end - at_);
    const int breaks = static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    const char sign = end + 2 < source_.size() ? source_[end + 2] : ' ';
    const bool printing = end < source_.size() && source_[end + 1] == '{';
    if (end < source_.size() && sign == '-') {
      text = stripped_end(text);
    } else if (end < source_.size() && sign != '+' && !printing) {
      const size_t line = text.rfind('\n') + 1;  // 0 when there is no line break
      const std::string_view indent = text.substr(line);
      if ((line > 0 || line_starting_) && stripped_end(indent).empty()) text = text.substr(0, line);
    }
    if (!text.empty()) add(TemplateToken::kText, std::string(text));
    line_ += breaks;
    at_ = end;
  }

  static std::string_view stripped_end(std::string_view text) {
    while (!text.empty()) {
      const size_t last = last_character(text);
      size_t at = last;
      if (!is_python_space(next_character(text, at))) break;
      text = text.substr(0, last);
    }
    return text;
  }

  // Moves behind a tag's end of two bytes; a '-' before it takes white space, and a line break goes after a block or comment.
  void close(bool stripping, bool keeping, bool printing) {
    const size_t begin = at_;
    at_ += 2;
    if (stripping) {
      while (at_ < source_.size()) {
        size_t next = at_;
        if (!is_python_space(next_character(source_, next))) break;
        at_ = next;
      }
    } else if (!keeping && !printing && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(begin), source_.begin() + static_cast<ptrdiff_t>(at_), '\n'));
    line_starting_ = source_[at_ - 1] == '\n';
  }

  void comment() {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) throw broken("a comment has no end ('#}')");
    const char sign = end > at_ ? source_[end - 1] : ' ';
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_), source_.begin() + static_cast<ptrdiff_t>(end), '\n'));
    at_ = end;
    close(sign == '-', sign == '+', false);
  }

  // Where the end of a tag ("%}" with its sign) is that holds only this word, from `at` behind its begin and sign; 0 when it holds another.
  [[nodiscard]] size_t word_of_tag(size_t at, std::string_view word) const {
    const auto skip = [&] { at = std::min(source_.find_first_not_of(" \t\n", at), source_.size()); };
    skip();
    if (std::string_view(source_).substr(at, word.size()) != word) return 0;
    at += word.size();
    skip();
    const std::string_view rest = std::string_view(source_).substr(at);
    return rest.starts_with("%}") || rest.starts_with("-%}") || rest.starts_with("+%}") ? at : 0;
  }

  // {% raw %}: what follows is text, up to {% endraw %}. The line break behind {% raw %} stays.
  void raw() {
    take_raw_tag("raw", /*printing=*/true);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const size_t word = tag + 2 + (tag + 2 < source_.size() && (source_[tag + 2] == '-' || source_[tag + 2] == '+') ? 1 : 0);
      if (word_of_tag(word, "endraw") == 0) continue;
      take_text(tag);
      at_ = word;
      return take_raw_tag("endraw", /*printing=*/false);
    }
    throw broken("{% raw %} has no end ({% endraw %})");
  }

  void take_raw_tag(std::string_view word, bool printing) {
    const size_t end = word_of_tag(at_, word);
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_), source_.begin() + static_cast<ptrdiff_t>(end), '\n'));
    const char sign = source_[end];
    at_ = end + (sign == '%' ? 0 : 1);
    close(sign == '-', sign == '+', printing);
  }

  // The words of a tag, up to its end.
  void inside(bool printing) {
    add(printing ? TemplateToken::kPrintBegin : TemplateToken::kBlockBegin, "");
    const std::string_view end = printing ? "}}" : "%}";
    std::string open;  // brackets that wait for their end: inside them "}}" ends two dicts, not the tag
    for (;;) {
      skip_space();
      const std::string_view rest = std::string_view(source_).substr(at_);
      if (rest.empty()) throw broken(fmt::format("a tag has no end ('{}')", end));
      const bool signed_end = (rest[0] == '-' || rest[0] == '+') && rest.substr(1).starts_with(end);
      if (open.empty() && (rest.starts_with(end) || signed_end)) {
        if (signed_end) ++at_;
        add(printing ? TemplateToken::kPrintEnd : TemplateToken::kBlockEnd, "");
        close(signed_end && rest[0] == '-', signed_end && rest[0] == '+', printing);
        return;
      }
      word(rest, open);
    }
  }

  void skip_space() {
    for (; at_ < source_.size() && (source_[at_] == ' ' || source_[at_] == '\t' || source_[at_] == '\n'); ++at_) line_ += source_[at_] == '\n';
  }

  void word(std::string_view rest, std::string& open) {
    if (starts_name(rest[0])) {
      size_t size = 1;
      while (size < rest.size() && (starts_name(rest[size]) || is_digit(rest[size]))) ++size;
      if (size > kMaxName) throw template_error(Code::kUnimplemented, line_, "a name of more than {} characters is not supported", kMaxName);
      add(TemplateToken::kName, std::string(rest.substr(0, size)));
      at_ += size;
    } else if (is_digit(rest[0])) {
      number(rest);
    } else if (rest[0] == '"' || rest[0] == '\'') {
      string(rest[0]);
    } else {
      operation(rest, open);
    }
  }

  void number(std::string_view rest) {
    size_t size = 0;
    while (size < rest.size() && (is_digit(rest[size]) || rest[size] == '_')) ++size;
    bool real = false;
    const auto digits_at = [&](size_t at) { return at < rest.size() && is_digit(rest[at]); };
    const auto skip_digits = [&] {
      while (digits_at(size)) ++size;
    };
    if (size < rest.size() && rest[size] == '.' && digits_at(size + 1)) {
      real = true;
      ++size;
      skip_digits();
    }
    if (size < rest.size() && (rest[size] == 'e' || rest[size] == 'E')) {
      const size_t sign = size + 1 < rest.size() && (rest[size + 1] == '+' || rest[size + 1] == '-') ? 1 : 0;
      if (digits_at(size + 1 + sign)) {
        real = true;
        size += 1 + sign;
        skip_digits();
      }
    }
    std::string text(rest.substr(0, size));
    std::erase(text, '_');
    add(real ? TemplateToken::kReal : TemplateToken::kInteger, std::move(text));
    at_ += size;
  }

  void operation(std::string_view rest, std::string& open) {
    static constexpr std::array<std::string_view, 24> kOperators = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~",
                                                                    "<",  ">",  "=",  "(",  ")",  "[",  "]", "{", "}", ",", ":", "."};
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(), [&](std::string_view text) { return rest.starts_with(text); });
    const std::string_view text = found != kOperators.end() ? *found : rest[0] == '|' ? "|" : "";
    if (text.empty()) throw broken(fmt::format("unexpected '{}'", utf8_prefix(rest, 4)));
    if (text == "(" || text == "[" || text == "{") open += text;
    if (text == ")" || text == "]" || text == "}") {
      const char begin = text == ")" ? '(' : text == "]" ? '[' : '{';
      if (open.empty() || open.back() != begin) throw broken(fmt::format("unexpected '{}'", text));
      open.pop_back();
    }
    add(TemplateToken::kOperator, std::string(text));
    at_ += text.size();
  }

  void string(char quote) {
    const int first_line = line_;
    std::string text;
    for (++at_; at_ < source_.size() && source_[at_] != quote;) {
      line_ += source_[at_] == '\n';
      if (source_[at_] == '\\' && at_ + 1 < source_.size()) escape(text);
      else text += source_[at_++];
    }
    if (at_ == source_.size()) throw template_error(Code::kDataLoss, first_line, "a text has no end ({})", quote);
    ++at_;
    tokens_.push_back({TemplateToken::kString, std::move(text), first_line});
  }

  // Python's escapes in texts.
  void escape(std::string& text) {
    static constexpr std::string_view kSimple = "n\nt\tr\r\\\\''\"\"a\ab\bf\fv\v";
    const char kind = source_[at_ + 1];
    at_ += 2;
    for (size_t i = 0; i < kSimple.size(); i += 2) {
      if (kSimple[i] == kind) {
        text += kSimple[i + 1];
        return;
      }
    }
    const size_t digits = kind == 'x' ? 2 : kind == 'u' ? 4 : kind == 'U' ? 8 : 0;
    if (kind == '\n') return;  // a line that goes on
    if (digits == 0) {
      if (kind == 'N' || is_digit(kind)) throw template_error(Code::kUnimplemented, line_, "the escape \\{} is not supported", kind);
      text += '\\';
      text += kind;
      return;
    }
    const std::string hex = source_.substr(at_, digits);
    if (hex.size() < digits || hex.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) throw broken(fmt::format("\\{} needs {} hexadecimal digits", kind, digits));
    const unsigned long code = std::stoul(hex, nullptr, 16);
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) throw broken(fmt::format("\\{}{} is no character", kind, hex));
    append_utf8(text, static_cast<char32_t>(code));
    at_ += digits;
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what came last ended with a line break
  std::vector<TemplateToken> tokens_;
};

}  // namespace

std::vector<TemplateToken> cut_template(std::string_view source) {
  if (const size_t at = find_invalid_utf8(source); at != std::string_view::npos) {
    throw error(Code::kDataLoss, "chat template: expected UTF-8, found an invalid byte 0x{:02x} at offset {}", static_cast<unsigned char>(source[at]), at);
  }
  return Lexer(with_plain_line_breaks(source)).run();
}

}  // namespace penstock::text
