#include "text/template_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/printf.h>

#include "text/characters.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

constexpr int64_t kMaxWidth = 1000;  // characters

int64_t characters_of(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

// What stands behind a '%': flags, width, precision and letter.
struct Directive {
  std::string flags;
  int64_t width = 0, precision = -1;
  char letter = '\0';
};

int64_t digits(const std::string& text, size_t& at) {
  int64_t number = 0;
  const auto parsed = std::from_chars(text.data() + at, text.data() + text.size(), number);
  if (parsed.ec == std::errc()) at = static_cast<size_t>(parsed.ptr - text.data());
  if (parsed.ec == std::errc::result_out_of_range || number > kMaxWidth || number < 0) throw template_problem("formatting with %: a width beyond {}", kMaxWidth);
  return number;
}

Directive directive_at(const std::string& text, size_t& at) {
  Directive directive;
  const size_t flags_end = std::min(text.find_first_not_of("-+ 0#", at), text.size());
  directive.flags = text.substr(at, flags_end - at);
  at = flags_end;
  if (at < text.size() && text[at] != '.') directive.width = text[at] >= '1' && text[at] <= '9' ? digits(text, at) : 0;
  if (at < text.size() && text[at] == '.') directive.precision = digits(text, ++at);
  if (at == text.size()) throw template_problem("incomplete format");
  directive.letter = text[at++];
  return directive;
}

// %d %i %x %X %o, as Python, which writes the sign before the digits of the magnitude.
std::string integer_shown_by(const Directive& directive, int64_t value) {
  const char letter = directive.letter;
  const auto has = [&](char flag) { return directive.flags.find(flag) != std::string::npos; };
  const uint64_t magnitude = value < 0 ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string digits = letter == 'x' ? fmt::format("{:x}", magnitude) : letter == 'X' ? fmt::format("{:X}", magnitude) : letter == 'o' ? fmt::format("{:o}", magnitude) : std::to_string(magnitude);
  std::string head = value < 0 ? "-" : has('+') ? "+" : has(' ') ? " " : "";
  if (has('#') && std::string_view("xXo").find(letter) != std::string_view::npos) head += {'0', letter};
  const auto missing = [&](int64_t wanted, size_t there) { return static_cast<size_t>(std::max<int64_t>(0, wanted - static_cast<int64_t>(there))); };
  digits.insert(0, missing(directive.precision, digits.size()), '0');
  const size_t pad = missing(directive.width, head.size() + digits.size());
  if (has('-')) return head + digits + std::string(pad, ' ');
  return has('0') ? head + std::string(pad, '0') + digits : std::string(pad, ' ') + head + digits;
}

std::string shown_by(const Directive& directive, const TemplateValue& value, bool escaping) {
  const char letter = directive.letter;
  if (letter == 's' || letter == 'r') {
    std::string text = letter == 's' ? value.shown() : value.repr();
    if (escaping && !(letter == 's' && value.is_safe())) text = escaped(text);
    size_t end = 0;
    for (int64_t i = 0; directive.precision >= 0 && i < directive.precision && end < text.size(); ++i) (void)next_character(text, end);
    if (directive.precision >= 0) text.resize(end);
    const auto missing = static_cast<size_t>(std::max<int64_t>(0, directive.width - characters_of(text)));
    return directive.flags.find('-') != std::string::npos ? text + std::string(missing, ' ') : std::string(missing, ' ') + text;
  }
  if (std::string_view("difFeEgGxXo").find(letter) == std::string_view::npos) throw TemplateProblem{Code::kUnimplemented, fmt::format("formatting with %{} is not supported", letter)};
  if (!value.is_number()) throw template_problem("%{} format: a real number is required, not {}", letter, value.type_name());
  if (std::string_view("fFeEgG").find(letter) != std::string_view::npos) {
    std::string form = "%" + directive.flags;
    if (directive.width > 0) form += std::to_string(directive.width);
    if (directive.precision >= 0) form += "." + std::to_string(directive.precision);
    return fmt::sprintf(form + letter, value.as_real());
  }
  const bool decimal = letter == 'd' || letter == 'i';
  const bool fits = !value.is_real() || (decimal && std::abs(value.as_real()) < 9e18);  // NaN does not
  if (!fits) throw template_problem("%{} format: an integer is required, not float", letter);
  return integer_shown_by(directive, value.is_real() ? static_cast<int64_t>(value.as_real()) : value.as_integer());
}

}  // namespace

std::string formatted_by_percent(const std::string& text, const TemplateValue& values, bool escaping, TemplateBudget& budget) {
  budget.spend_bytes(text.size());
  const std::vector<TemplateValue> given = values.is_tuple() ? values.as_list() : std::vector<TemplateValue>{values};
  std::string out;
  size_t used = 0;
  for (size_t at = 0; at < text.size();) {
    if (text[at] != '%') {
      out += text[at++];
      continue;
    }
    if (text.substr(++at, 1) == "(") throw TemplateProblem{Code::kUnimplemented, "formatting with %(name) is not supported"};
    const Directive directive = directive_at(text, at);
    if (directive.letter == '%') {
      out += '%';
      continue;
    }
    if (used == given.size()) throw template_problem("not enough arguments for format string");
    budget.spend_bytes(given[used].bytes());
    const std::string shown = shown_by(directive, given[used++], escaping);
    budget.spend_bytes(shown.size());
    out += shown;
  }
  const bool may_be_left = !values.is_tuple() && (values.is_dict() || values.is_list());
  if (used < given.size() && !may_be_left) throw template_problem("not all arguments converted during string formatting");
  return out;
}

std::string formatted_by_braces(const std::string& text, const TemplateArguments& arguments, TemplateBudget& budget) {
  budget.spend_bytes(text.size());
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < text.size();) {
    const char c = text[at];
    if ((c == '{' || c == '}') && text.substr(at + 1, 1) == std::string_view(&c, 1)) {
      out += c;
      at += 2;
    } else if (c == '}') {
      throw template_problem("Single '}}' encountered in format string");
    } else if (c == '{') {
      const size_t end = text.find('}', at);
      if (end == std::string::npos) throw template_problem("expected '}}' before end of string");
      const std::string field = text.substr(at + 1, end - at - 1);
      if (field.find_first_of(".[!:{") != std::string::npos) throw TemplateProblem{Code::kUnimplemented, fmt::format("format() with '{{{}}}' is not supported", field)};
      const bool numbered = field.find_first_not_of("0123456789") == std::string::npos && field.size() < 6;
      const size_t index = !numbered ? arguments.positional.size() : field.empty() ? next++ : std::stoul(field);
      budget.spend(static_cast<int64_t>(arguments.named.size() * (1 + field.size() / 64)));
      const TemplateValue* value = arguments.find(index, field.c_str());
      if (value == nullptr) throw template_problem("format(): nothing is given for '{{{}}}'", field);
      const std::string shown = value->shown();
      budget.spend_bytes(shown.size());
      out += shown;
      at = end + 1;
    } else {
      out += c;
      ++at;
    }
  }
  return out;
}

}  // namespace penstock::text
