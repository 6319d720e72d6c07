// Methods of Python's texts, lists and dicts, as far as templates use them.
#include <algorithm>
#include <array>
#include <span>

#include "text/characters.h"
#include "text/template_builtins.h"
#include "text/template_format.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

using Value = TemplateValue;
using Arguments = TemplateArguments;

// The argument that is looked for in the text.
const std::string& searched(const std::string& text, const Arguments& arguments, const char* name, TemplateBudget& budget) {
  const std::string& part = arguments.text(0, name);
  budget.spend_search(text.size(), part.size());
  return part;
}

Value split(const std::string& text, const Arguments& arguments, bool from_right, TemplateBudget& budget) {
  const int64_t limit = arguments.integer_or(1, "maxsplit", -1);
  const Value* separator = arguments.find(0, "sep");
  std::vector<std::string> parts;
  if (separator == nullptr || separator->is_none()) {
    parts = from_right ? split_at_space_last(text, limit) : split_at_space(text, limit);
  } else {
    const std::string& at = searched(text, arguments, "sep", budget);
    if (at.empty()) throw template_problem("empty separator");
    parts = from_right ? split_at_last(text, at, limit) : split_at(text, at, limit);
  }
  std::vector<Value> values;
  for (std::string& part : parts) values.push_back(Value::text(std::move(part)));
  return Value::list(std::move(values));
}

bool has_affix(const std::string& text, const Arguments& arguments, bool at_end, TemplateBudget& budget) {
  const Value& wanted = arguments.require(0, at_end ? "suffix" : "prefix");
  if (wanted.is_tuple()) budget.spend_bytes(wanted.bytes());
  const auto fits = [&](const Value& affix) {
    if (!affix.is_text()) throw template_problem("startswith and endswith: expected a text, found {}", affix.type_name());
    return at_end ? text.ends_with(affix.as_text()) : text.starts_with(affix.as_text());
  };
  return wanted.is_tuple() ? std::any_of(wanted.as_list().begin(), wanted.as_list().end(), fits) : fits(wanted);
}

Value strip(const std::string& text, const Arguments& arguments, bool left, bool right, TemplateBudget& budget) {
  const Value* characters = arguments.find(0, "chars");
  if (characters == nullptr || characters->is_none()) return Value::text(stripped(text, left, right));
  budget.spend_bytes(16 * characters->bytes());  // they are sorted
  return Value::text(stripped_of(text, arguments.text(0, "chars"), left, right));
}

// The number of characters before a byte.
int64_t characters_before(const std::string& text, size_t end) {
  return std::count_if(text.begin(), text.begin() + static_cast<ptrdiff_t>(end), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

Value position(const std::string& text, size_t found) {
  return Value::integer(found == std::string::npos ? -1 : characters_before(text, found));
}

bool all_characters(const std::string& text, bool (*wanted)(char32_t)) {
  for (size_t at = 0; at < text.size();) {
    if (!wanted(next_character(text, at))) return false;
  }
  return !text.empty();
}

int64_t count_of(const std::string& text, const std::string& part) {
  if (part.empty()) return characters_before(text, text.size()) + 1;
  int64_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

Value partition(const std::string& text, const Arguments& arguments, bool last, TemplateBudget& budget) {
  const std::string& separator = searched(text, arguments, "sep", budget);
  if (separator.empty()) throw template_problem("empty separator");
  const size_t at = last ? text.rfind(separator) : text.find(separator);
  std::vector<Value> parts;
  if (at != std::string::npos) parts = {Value::text(text.substr(0, at)), Value::text(separator), Value::text(text.substr(at + separator.size()))};
  else if (last) parts = {Value::text(""), Value::text(""), Value::text(text)};
  else parts = {Value::text(text), Value::text(""), Value::text("")};
  return Value::list(std::move(parts), /*tuple=*/true);
}

Value formatted_by_braces_value(const std::string& text, const Arguments& arguments, TemplateBudget& budget) {
  return Value::text(formatted_by_braces(text, arguments, budget));
}

struct Method {
  const char* name;
  Value (*call)(const std::string& text, const Arguments& arguments, TemplateBudget& budget);
};

Value lines_of(const std::string& text) {
  std::vector<Value> lines;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    lines.push_back(Value::text(text.substr(at, end - at)));
    if (text.compare(end, 2, "\r\n") == 0) ++end;
    at = end + 1;
  }
  return Value::list(std::move(lines));
}

constexpr std::array kTextMethods = {
    Method{"strip", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return strip(t, a, true, true, b); }},
    Method{"lstrip", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return strip(t, a, true, false, b); }},
    Method{"rstrip", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return strip(t, a, false, true, b); }},
    Method{"split", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return split(t, a, false, b); }},
    Method{"rsplit", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return split(t, a, true, b); }},
    Method{"splitlines", [](const std::string& t, const Arguments&, TemplateBudget&) { return lines_of(t); }},
    Method{"startswith", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return Value::boolean(has_affix(t, a, false, b)); }},
    Method{"endswith", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return Value::boolean(has_affix(t, a, true, b)); }},
    Method{"upper", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::text(upper(t)); }},
    Method{"lower", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::text(lower(t)); }},
    Method{"title", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::text(title(t)); }},
    Method{"capitalize", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::text(capitalized(t)); }},
    Method{"find", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return position(t, t.find(searched(t, a, "sub", b))); }},
    Method{"rfind", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return position(t, t.rfind(searched(t, a, "sub", b))); }},
    Method{"count", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return Value::integer(count_of(t, searched(t, a, "sub", b))); }},
    Method{"format", formatted_by_braces_value},
    Method{"partition", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return partition(t, a, false, b); }},
    Method{"rpartition", [](const std::string& t, const Arguments& a, TemplateBudget& b) { return partition(t, a, true, b); }},
    Method{"islower", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::boolean(is_lower(t)); }},
    Method{"isupper", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::boolean(is_upper(t)); }},
    Method{"isalnum", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::boolean(all_characters(t, [](char32_t c) { return is_letter(c) || is_number(c); })); }},
    Method{"isnumeric", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::boolean(all_characters(t, is_number)); }},
    Method{"isdigit", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::boolean(all_characters(t, is_number)); }},
    Method{"isalpha", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::boolean(all_characters(t, is_letter)); }},
    Method{"isspace", [](const std::string& t, const Arguments&, TemplateBudget&) { return Value::boolean(all_characters(t, is_python_space)); }},
    Method{"removeprefix",
           [](const std::string& t, const Arguments& a, TemplateBudget&) {
             const std::string& affix = a.text(0, "prefix");
             return Value::text(t.starts_with(affix) ? t.substr(affix.size()) : t);
           }},
    Method{"removesuffix",
           [](const std::string& t, const Arguments& a, TemplateBudget&) {
             const std::string& affix = a.text(0, "suffix");
             return Value::text(t.ends_with(affix) ? t.substr(0, t.size() - affix.size()) : t);
           }},
    Method{"replace",
           [](const std::string& t, const Arguments& a, TemplateBudget& budget) {
             return Value::text(replaced(t, a.text(0, "old"), a.text(1, "new"), a.integer_or(2, "count", -1), budget));
           }},
    Method{"join",
           [](const std::string& t, const Arguments& a, TemplateBudget& budget) {
             return apply_filter("join", a.require(0, "iterable"), {{Value::text(t)}, {}}, budget);
           }},
};

const Method* text_method(const std::string& name) {
  const auto* found = std::find_if(kTextMethods.begin(), kTextMethods.end(), [&](const Method& method) { return method.name == name; });
  return found == kTextMethods.end() ? nullptr : found;
}

Value escaped_value(const Value& value, TemplateBudget& budget) {
  if (value.is_safe()) return value;
  budget.spend_bytes(value.bytes());
  return Value::text(escaped(value.shown()), /*safe=*/true);
}

// As Jinja's Markup takes what its methods put into it.
Arguments escaped_arguments(const std::string& method, Arguments arguments, TemplateBudget& budget) {
  if (method == "join") {
    std::vector<Value> items = items_of(arguments.require(0, "iterable"), budget);
    for (Value& item : items) item = escaped_value(item, budget);
    return {{Value::list(std::move(items))}, {}};
  }
  if (method != "format" && method != "replace") return arguments;
  const size_t first = method == "format" ? 0 : 1, last = method == "format" ? arguments.positional.size() : std::min<size_t>(2, arguments.positional.size());
  for (size_t i = first; i < last; ++i) arguments.positional[i] = escaped_value(arguments.positional[i], budget);
  for (auto& [name, value] : arguments.named) {
    if (method == "format" || name == "new") value = escaped_value(value, budget);
  }
  return arguments;
}

// A text or texts that come of a safe one.
Value made_safe(const Value& value) {
  if (value.is_text()) return Value::text(value.as_text(), true);
  if (!value.is_list()) return value;
  std::vector<Value> items;
  for (const Value& item : value.as_list()) items.push_back(made_safe(item));
  return Value::list(std::move(items), value.is_tuple());
}

Value call_dict_method(const Value& dict, const std::string& name, const Arguments& arguments, TemplateBudget& budget) {
  if (name == "get") {
    const Value& key = arguments.require(0, "key");
    if (key.is_text()) budget.spend_bytes(key.bytes());
    const Value* found = dict.find(key);
    const Value* otherwise = arguments.find(1, "default");
    return found != nullptr ? *found : otherwise != nullptr ? *otherwise : Value::none();
  }
  if (name == "copy") return dict;
  std::vector<Value> items;
  for (const auto& [key, value] : dict.as_dict()) {
    if (name == "keys") items.push_back(key);
    else if (name == "values") items.push_back(value);
    else items.push_back(Value::list({key, value}, /*tuple=*/true));
  }
  return Value::list(std::move(items));
}

Value call_list_method(const Value& list, const std::string& name, const Arguments& arguments, TemplateBudget& budget) {
  const Value& wanted = arguments.require(0, "value");
  int64_t count = 0;
  const auto& items = list.as_list();
  for (size_t i = 0; i < items.size(); ++i) {
    if (!equal(items[i], wanted, budget)) continue;
    if (name == "index") return Value::integer(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") throw template_problem("{} is not in list", wanted.repr());
  return Value::integer(count);
}

}  // namespace

bool has_method(const TemplateValue& value, const std::string& name) {
  if (value.is_text()) return text_method(name) != nullptr;
  if (value.is_dict()) return name == "items" || name == "keys" || name == "values" || name == "get" || name == "copy";
  if (value.is_list()) return name == "index" || name == "count";
  return value.as_loop() != nullptr && name == "cycle";
}

bool has_method_in_python(const TemplateValue& value, const std::string& name) {
  static constexpr std::string_view kOfTexts[] = {"casefold", "center",  "encode", "expandtabs", "format_map", "index", "isascii",  "isdecimal", "isidentifier",
                                                  "isprintable", "istitle", "ljust", "maketrans", "rindex", "rjust", "swapcase", "translate", "zfill"};
  static constexpr std::string_view kOfLists[] = {"append", "clear", "copy", "extend", "insert", "pop", "remove", "reverse", "sort"};
  static constexpr std::string_view kOfDicts[] = {"clear", "fromkeys", "pop", "popitem", "setdefault", "update"};
  const auto among = [&](std::span<const std::string_view> names) { return std::find(names.begin(), names.end(), name) != names.end(); };
  if (has_method(value, name)) return true;
  return value.is_text() ? among(kOfTexts) : value.is_list() ? among(kOfLists) : value.is_dict() && among(kOfDicts);
}

TemplateValue call_method(const TemplateValue& value, const std::string& name, const TemplateArguments& arguments, TemplateBudget& budget) {
  if (value.is_text()) budget.spend_bytes(value.as_text().size());
  if (value.is_dict()) budget.spend(static_cast<int64_t>(value.as_dict().size()));
  if (value.is_list()) budget.spend(static_cast<int64_t>(value.as_list().size()));
  if (!has_method(value, name)) {
    throw TemplateProblem{Code::kUnimplemented, fmt::format("the method {}() of a {} is not supported", name, value.type_name())};
  }
  if (value.is_text()) {
    Value result = text_method(name)->call(value.as_text(), value.is_safe() ? escaped_arguments(name, arguments, budget) : arguments, budget);
    if (result.is_list()) budget.spend(static_cast<int64_t>(result.as_list().size()));
    return value.is_safe() ? made_safe(result) : result;
  }
  if (value.is_dict()) return call_dict_method(value, name, arguments, budget);
  if (value.is_list()) return call_list_method(value, name, arguments, budget);
  if (arguments.positional.empty()) throw template_problem("cycle() needs items");
  return arguments.positional[value.as_loop()->index0 % arguments.positional.size()];
}

}  // namespace penstock::text
