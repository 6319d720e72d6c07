#include "config/fields.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <type_traits>

#include "base/nearest_key.h"

namespace penstock::config {
namespace {

constexpr size_t kShownBytes = 64;  // of a value that a message repeats

template <typename Number>
std::optional<Number> parse_number(const std::string& text) {
  Number number{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// The text of an unquoted scalar, which alone may be a number or a word.
std::optional<std::string> plain_text(const RawValue& raw) {
  if (raw.kind != RawValue::Kind::kScalar || raw.quoted) return std::nullopt;
  return raw.items.at(0);
}

std::optional<int64_t> integer_within(const std::string& text, IntRange range) {
  const auto number = parse_number<int64_t>(text);
  if (!number || *number < range.min || *number > range.max) return std::nullopt;
  return number;
}

bool within(double number, RealRange range) {
  const bool above = range.min_excluded ? number > range.min : number >= range.min;
  const bool below = range.max_excluded ? number < range.max : number <= range.max;
  return above && below;  // false for NaN
}

std::string describe(const char* what, IntRange range) {
  const bool has_min = range.min != INT_MIN, has_max = range.max != INT_MAX;
  if (has_min && has_max) return fmt::format("{} from {} to {}", what, range.min, range.max);
  if (has_min) return fmt::format("{} >= {}", what, range.min);
  return has_max ? fmt::format("{} <= {}", what, range.max) : std::string(what);
}

std::string describe(RealRange range) {
  const std::string low = fmt::format("a number {} {}", range.min_excluded ? ">" : ">=", range.min);
  if (range.max == RealRange{}.max) return low;
  return fmt::format("{} and {} {}", low, range.max_excluded ? "<" : "<=", range.max);
}

// A double-quoted YAML scalar.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

template <typename Items, typename Print>
std::string print_list(const Items& items, Print print) {
  std::string out = "[";
  for (const auto& item : items) {
    if (out.size() > 1) out += ", ";
    out += print(item);
  }
  return out + "]";
}

template <typename Int>
Field make_integer_field(std::string key, Int& target, IntRange range, std::string meaning) {
  if constexpr (std::is_same_v<Int, int64_t>) {
    if (range.max == INT_MAX) range.max = INT64_MAX;
  }
  auto assign = [&target, range](const RawValue& raw) {
    const auto text = plain_text(raw);
    const auto number = text ? integer_within(*text, range) : std::nullopt;
    if (number) target = static_cast<Int>(*number);
    return number.has_value();
  };
  IntRange shown = range;
  if (shown.max == INT64_MAX) shown.max = INT_MAX;
  return {std::move(key), describe("an integer", shown), std::move(meaning), assign, [&target] { return fmt::to_string(target); }};
}

bool is_below(std::string_view key, std::string_view section) {
  return key.size() > section.size() && key.substr(0, section.size()) == section && key[section.size()] == '.';
}

std::string_view parent_of(std::string_view key) { return key.substr(0, std::min(key.rfind('.'), key.size())); }
std::string_view last_part(std::string_view key) { return key.substr(key.rfind('.') + 1); }  // npos + 1 == 0

// The known key that an unknown one is compared with: one of the same last part elsewhere, else those beside it.
std::string describe_unknown(const std::vector<Field>& fields, std::string_view key) {
  std::vector<std::string_view> known;
  for (const Field& field : fields) {
    if (last_part(field.key) == last_part(key)) known.push_back(field.key);
  }
  if (!known.empty()) return unknown_key(key, known);
  const bool at_top = key.find('.') == std::string_view::npos;
  const std::string_view section = at_top ? "" : parent_of(key);
  const size_t prefix = at_top ? 0 : section.size() + 1;
  for (const Field& field : fields) {
    if (!at_top && !is_below(field.key, section)) continue;
    known.push_back(std::string_view(field.key).substr(0, field.key.find('.', prefix)));
  }
  return unknown_key(key, known);
}

}  // namespace

std::string RawValue::describe() const {
  switch (kind) {
    case Kind::kList:
      return "a list";
    case Kind::kMap:
      return "a map";
    case Kind::kNothing:
      return "nothing";
    case Kind::kNested:
      return "a list of lists or maps";
    case Kind::kScalar:
      break;
  }
  const std::string& text = items.at(0);
  return fmt::format("{}'{}{}'", quoted ? "the text " : "", text.substr(0, kShownBytes), text.size() > kShownBytes ? "..." : "");
}

Field integer_field(std::string key, int& target, IntRange range, std::string meaning) {
  return make_integer_field(std::move(key), target, range, std::move(meaning));
}

Field integer_field(std::string key, int64_t& target, IntRange range, std::string meaning) {
  return make_integer_field(std::move(key), target, range, std::move(meaning));
}

Field seconds_field(std::string key, seconds& target, IntRange range, std::string meaning) {
  auto assign = [&target, range](const RawValue& raw) {
    const auto text = plain_text(raw);
    const auto number = text ? integer_within(*text, range) : std::nullopt;
    if (number) target = seconds(*number);
    return number.has_value();
  };
  return {std::move(key), describe("a whole number of seconds", range), std::move(meaning), assign,
          [&target] { return fmt::to_string(target.count()); }};
}

Field real_field(std::string key, double& target, RealRange range, std::string meaning) {
  auto assign = [&target, range](const RawValue& raw) {
    const auto text = plain_text(raw);
    const auto number = text ? parse_number<double>(*text) : std::nullopt;
    const bool fits = number && within(*number, range);
    if (fits) target = *number;
    return fits;
  };
  return {std::move(key), describe(range), std::move(meaning), assign, [&target] { return fmt::to_string(target); }};
}

Field boolean_field(std::string key, bool& target, std::string meaning) {
  auto assign = [&target](const RawValue& raw) {
    const std::string word = lower(plain_text(raw).value_or(""));
    if (word != "true" && word != "false") return false;
    target = word == "true";
    return true;
  };
  return {std::move(key), "true or false", std::move(meaning), assign, [&target] { return fmt::to_string(target); }};
}

Field text_field(std::string key, std::string& target, std::string meaning, size_t most_bytes) {
  auto assign = [&target, most_bytes](const RawValue& raw) {
    if (raw.kind != RawValue::Kind::kScalar || raw.items.at(0).size() > most_bytes) return false;
    target = raw.items.at(0);
    return true;
  };
  const std::string expected = most_bytes == SIZE_MAX ? "text" : fmt::format("text of at most {} bytes", most_bytes);
  return {std::move(key), expected, std::move(meaning), assign, [&target] { return quoted(target); }};
}

Field text_list_field(std::string key, std::vector<std::string>& target, std::string meaning, size_t most_bytes) {
  auto assign = [&target, most_bytes](const RawValue& raw) {
    if (raw.kind != RawValue::Kind::kScalar && raw.kind != RawValue::Kind::kList) return false;
    if (std::any_of(raw.items.begin(), raw.items.end(), [&](const std::string& item) { return item.empty() || item.size() > most_bytes; })) return false;
    target = raw.items;
    return true;
  };
  const std::string expected = "text or a list of texts, none empty" + (most_bytes == SIZE_MAX ? "" : fmt::format(" or longer than {} bytes", most_bytes));
  return {std::move(key), expected, std::move(meaning), assign, [&target] { return print_list(target, quoted); }};
}

Field integer_list_field(std::string key, std::vector<int>& target, IntRange range, std::string meaning) {
  auto assign = [&target, range](const RawValue& raw) {
    if (raw.kind != RawValue::Kind::kList) return false;
    std::vector<int> numbers;
    for (const std::string& item : raw.items) {
      const auto number = integer_within(item, range);
      if (!number) return false;
      numbers.push_back(static_cast<int>(*number));
    }
    target = std::move(numbers);
    return true;
  };
  return {std::move(key), describe("a list, each an integer", range), std::move(meaning), assign,
          [&target] { return print_list(target, [](int number) { return fmt::to_string(number); }); }};
}

Field idle(std::string key, std::string why) { return {std::move(key), "", "", nullptr, nullptr, std::move(why)}; }

Field noted(Field field, std::string why) {
  field.note = std::move(why);
  return field;
}

Field detail::choice_field(std::string key, std::vector<std::string> words, std::function<void(size_t)> set, std::function<size_t()> get,
                           std::string meaning) {
  std::string expected = fmt::format("one of {}", fmt::join(words, ", "));
  auto assign = [words, set = std::move(set)](const RawValue& raw) {
    if (raw.kind != RawValue::Kind::kScalar) return false;
    const auto found = std::find(words.begin(), words.end(), lower(raw.items.at(0)));
    if (found != words.end()) set(static_cast<size_t>(found - words.begin()));
    return found != words.end();
  };
  return {std::move(key), std::move(expected), std::move(meaning), assign, [words, get = std::move(get)] { return words.at(get()); }};
}

std::string place(const std::string& file, int line) { return line > 0 ? fmt::format("{}:{}: ", file, line) : file + ": "; }

Result<Filled> fill(const std::vector<Field>& fields, const std::vector<RawValue>& values, const std::string& file) {
  Filled filled;
  std::string passed_over;  // an idle() key that is a map: what stands below it is not looked at
  for (const RawValue& value : values) {
    if (!passed_over.empty() && is_below(value.key, passed_over)) continue;
    const std::string where = place(file, value.line);
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const Field& f) { return f.key == value.key; });
    if (field == fields.end()) {
      const bool is_section = std::any_of(fields.begin(), fields.end(), [&](const Field& f) { return is_below(f.key, value.key); });
      if (!is_section) return error(Code::kInvalidArgument, "{}{}", where, describe_unknown(fields, value.key));
      if (value.kind != RawValue::Kind::kMap && value.kind != RawValue::Kind::kNothing) {
        return error(Code::kInvalidArgument, "{}key '{}': expected a map, found {}", where, value.key, value.describe());
      }
    } else if (!field->assign) {
      passed_over = value.key;
    } else if (!field->assign(value)) {
      return error(Code::kInvalidArgument, "{}key '{}': expected {}, found {}", where, value.key, field->expected, value.describe());
    }
    if (field != fields.end() && !field->note.empty()) filled.notes.push_back(fmt::format("{}{}: {}", where, value.key, field->note));
    filled.lines[value.key] = value.line;
  }
  return filled;
}

std::string print_yaml(const std::vector<Field>& fields) {
  constexpr size_t kCommentColumn = 40;
  std::string out, section;
  for (const Field& field : fields) {
    if (!field.print) continue;
    const size_t dot = field.key.find('.');
    const std::string parent = dot == std::string::npos ? "" : field.key.substr(0, dot);
    PENSTOCK_CHECK(field.key.find('.', dot + 1) == std::string::npos || dot == std::string::npos, "'{}' is nested too deep to print",
                   field.key);
    if (parent != section && !parent.empty()) out += parent + ":\n";
    section = parent;
    std::string line = fmt::format("{}{}: {}", parent.empty() ? "" : "  ", last_part(field.key), field.print());
    if (!field.meaning.empty()) line = fmt::format("{:<{}}  # {}", line, kCommentColumn, field.meaning);
    out += line + "\n";
  }
  return out;
}

}  // namespace penstock::config
