// Jinja's filters, as far as chat templates use them.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/template_builtins.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

using Value = TemplateValue;
using Arguments = TemplateArguments;

// Text filters take anything, as it is shown.
std::string soft(const Value& value) { return value.shown(); }

Value trim(const Value& value, const Arguments& arguments, TemplateBudget&) {
  const Value* characters = arguments.find(0, "chars");
  if (characters == nullptr || characters->is_none()) return Value::text(stripped(soft(value), true, true));
  return Value::text(stripped_of(soft(value), arguments.text(0, "chars"), true, true));
}

Value length(const Value& value, const Arguments&, TemplateBudget&) {
  if (value.is_undefined()) return Value::integer(0);
  if (value.is_list()) return Value::integer(static_cast<int64_t>(value.as_list().size()));
  if (value.is_dict()) return Value::integer(static_cast<int64_t>(value.as_dict().size()));
  if (!value.is_text()) throw template_problem("object of type '{}' has no len()", value.type_name());
  const std::string& text = value.as_text();
  return Value::integer(std::count_if(text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

Value otherwise(const Value& value, const Arguments& arguments, TemplateBudget&) {
  const bool missing = value.is_undefined() || (arguments.flag_or(1, "boolean", false) && !value.truth());
  if (!missing) return value;
  const Value* other = arguments.find(0, "default_value");
  return other == nullptr ? Value::text("") : *other;
}

Value join(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* separator = arguments.find(0, "d");
  const Value* attribute = arguments.find(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : items_of(value, budget)) {
    if (!first && separator != nullptr) out += separator->shown();
    first = false;
    out += attribute == nullptr ? item.shown() : path_of(item, attribute->shown()).shown();
    budget.spend_bytes(0);
  }
  return Value::text(std::move(out));
}

Value to_json_text(const Value& value, const Arguments& arguments, TemplateBudget&) {
  for (const auto& [name, given] : arguments.named) {
    if (name == "separators" && !given.is_none()) throw TemplateProblem{Code::kUnimplemented, "tojson with separators is not supported"};
  }
  const Value* indent = arguments.find(1, "indent");
  if (arguments.positional.size() == 1) indent = &arguments.positional[0];  // Jinja's own first argument is the indent
  int64_t spaces = -1;
  if (indent != nullptr && !indent->is_none() && !(indent->is_boolean() && !indent->truth())) {
    if (!indent->is_number() || indent->is_real() || indent->as_integer() > 16) throw template_problem("tojson: expected an indent from 0 to 16");
    spaces = indent->as_integer();
  }
  return Value::text(to_json(value, static_cast<int>(spaces), arguments.flag_or(3, "sort_keys", false), arguments.flag_or(99, "ensure_ascii", false)));
}

Value replace(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  return Value::text(replaced(soft(value), arguments.text(0, "old"), arguments.text(1, "new"), arguments.integer_or(2, "count", -1), budget));
}

Value first_or_last(const Value& value, bool last, TemplateBudget& budget) {
  const std::vector<Value> items = items_of(value, budget);
  if (items.empty()) return Value::undefined("No item, sequence was empty.");
  return last ? items.back() : items.front();
}

Value list(const Value& value, const Arguments&, TemplateBudget& budget) { return Value::list(items_of(value, budget)); }

Value pairs(const Value& value, const Arguments&, TemplateBudget& budget) {
  if (value.is_undefined()) return Value::list({});
  if (!value.is_dict()) throw template_problem("Can only get item pairs from a mapping.");
  return call_method(value, "items", {}, budget);
}

Value sorted_pairs(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const bool by_value = arguments.find(1, "by") != nullptr && arguments.find(1, "by")->shown() == "value";
  const bool exact = arguments.flag_or(0, "case_sensitive", false);
  std::vector<Value> items = pairs(value, {}, budget).as_list();
  const auto key = [&](const Value& pair) {
    const Value& wanted = pair.as_list()[by_value ? 1 : 0];
    return wanted.is_text() && !exact ? Value::text(lower(wanted.as_text())) : wanted;
  };
  std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) { return compare(key(a), key(b)) < 0; });
  if (arguments.flag_or(2, "reverse", false)) std::reverse(items.begin(), items.end());
  return Value::list(std::move(items));
}

Value sorted(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* attribute = arguments.find(2, "attribute");
  const bool exact = arguments.flag_or(1, "case_sensitive", false);
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : items_of(value, budget)) {
    Value key = attribute == nullptr || attribute->is_none() ? item : path_of(item, attribute->shown());
    if (key.is_text() && !exact) key = Value::text(lower(key.as_text()));
    keyed.emplace_back(std::move(key), item);
    budget.spend(10);
  }
  const bool reverse = arguments.flag_or(0, "reverse", false);
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) { return reverse ? compare(a.first, b.first) > 0 : compare(a.first, b.first) < 0; });
  std::vector<Value> items;
  for (auto& [key, item] : keyed) items.push_back(std::move(item));
  return Value::list(std::move(items));
}

Value unique(const Value& value, const Arguments&, TemplateBudget& budget) {
  std::vector<Value> seen, items;
  for (const Value& item : items_of(value, budget)) {
    const Value key = item.is_text() ? Value::text(lower(item.as_text())) : item;
    budget.spend(static_cast<int64_t>(seen.size()));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return other.equals(key); })) continue;
    seen.push_back(key);
    items.push_back(item);
  }
  return Value::list(std::move(items));
}

Value reverse(const Value& value, const Arguments&, TemplateBudget& budget) {
  std::vector<Value> items = items_of(value, budget);
  std::reverse(items.begin(), items.end());
  if (!value.is_text()) return Value::list(std::move(items));
  std::string text;
  for (const Value& item : items) text += item.as_text();
  return Value::text(std::move(text));
}

Arguments without_first(const Arguments& arguments, size_t count) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<ptrdiff_t>(std::min(count, rest.positional.size())));
  return rest;
}

Value map(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* attribute = nullptr;
  const Value* missing = nullptr;
  for (const auto& [name, given] : arguments.named) {
    if (name == "attribute") attribute = &given;
    if (name == "default") missing = &given;
  }
  std::vector<Value> items;
  for (const Value& item : items_of(value, budget)) {
    budget.spend(1);
    if (attribute == nullptr) {
      items.push_back(apply_filter(arguments.text(0, "the name of a filter"), item, without_first(arguments, 1), budget));
      continue;
    }
    Value member = path_of(item, attribute->shown());
    items.push_back(member.is_undefined() && missing != nullptr ? *missing : std::move(member));
  }
  return Value::list(std::move(items));
}

// select, reject, selectattr, rejectattr: items for which a test holds, of themselves or of an attribute. Without a test: truth.
Value choose(const Value& value, const Arguments& arguments, TemplateBudget& budget, bool by_attribute, bool wanted) {
  const size_t test_at = by_attribute ? 1 : 0;
  std::vector<Value> items;
  for (const Value& item : items_of(value, budget)) {
    budget.spend(1);
    const Value subject = by_attribute ? path_of(item, arguments.require(0, "attribute").shown()) : item;
    const bool holds = arguments.positional.size() > test_at
                           ? apply_test(arguments.text(test_at, "the name of a test"), subject, without_first(arguments, test_at + 1))
                           : subject.truth();
    if (holds == wanted) items.push_back(item);
  }
  return Value::list(std::move(items));
}

Value to_integer(const Value& value, const Arguments& arguments, TemplateBudget&) {
  if (value.is_real() && std::abs(value.as_real()) < 9e18) return Value::integer(static_cast<int64_t>(value.as_real()));
  if (value.is_number() && !value.is_real()) return Value::integer(value.as_integer());
  const std::string text = stripped(value.shown(), true, true);
  int64_t number = 0;
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto parsed = std::from_chars(begin, text.data() + text.size(), number);
  if (parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return Value::integer(number);
  double real = 0;
  const auto as_real = std::from_chars(begin, text.data() + text.size(), real);
  if (as_real.ec == std::errc() && as_real.ptr == text.data() + text.size() && std::abs(real) < 9e18) return Value::integer(static_cast<int64_t>(real));
  const Value* other = arguments.find(0, "default");
  return other == nullptr ? Value::integer(0) : *other;
}

Value to_real(const Value& value, const Arguments& arguments, TemplateBudget&) {
  if (value.is_number()) return Value::real(value.as_real());
  const std::string text = stripped(value.shown(), true, true);
  double real = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), real);
  if (!text.empty() && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size()) return Value::real(real);
  const Value* other = arguments.find(0, "default");
  return other == nullptr ? Value::real(0) : *other;
}

Value absolute(const Value& value, const Arguments&, TemplateBudget&) {
  if (!value.is_number()) throw template_problem("bad operand type for abs(): '{}'", value.type_name());
  if (value.is_real()) return Value::real(std::abs(value.as_real()));
  if (value.as_integer() == INT64_MIN) throw template_problem("abs(): the number is too large");
  return Value::integer(std::abs(value.as_integer()));
}

Value indented(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* width = arguments.find(0, "width");
  const int64_t spaces = width != nullptr && width->is_text() ? 0 : arguments.integer_or(0, "width", 4);
  if (spaces < 0 || spaces > 64) throw template_problem("indent: expected a width from 0 to 64");
  const std::string margin = width != nullptr && width->is_text() ? width->as_text() : std::string(static_cast<size_t>(spaces), ' ');
  const bool first = arguments.flag_or(1, "first", false), blank = arguments.flag_or(2, "blank", false);
  std::string out;
  std::vector<std::string> lines = split_at(soft(value), "\n", -1);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i == 0 ? first : blank || !lines[i].empty()) out += margin;
    out += lines[i];
    budget.spend_bytes(margin.size() + lines[i].size());
  }
  return Value::text(std::move(out));
}

Value escaped(const Value& value, const Arguments&, TemplateBudget&) {
  std::string out;
  for (const char c : soft(value)) {
    if (c == '&') out += "&amp;";
    else if (c == '<') out += "&lt;";
    else if (c == '>') out += "&gt;";
    else if (c == '"') out += "&#34;";
    else if (c == '\'') out += "&#39;";
    else out += c;
  }
  return Value::text(std::move(out));
}

struct Filter {
  const char* name;
  Value (*apply)(const Value& value, const Arguments& arguments, TemplateBudget& budget);
};

constexpr std::array kFilters = {
    Filter{"trim", trim},
    Filter{"length", length},
    Filter{"count", length},
    Filter{"default", otherwise},
    Filter{"d", otherwise},
    Filter{"join", join},
    Filter{"tojson", to_json_text},
    Filter{"replace", replace},
    Filter{"first", [](const Value& v, const Arguments&, TemplateBudget& b) { return first_or_last(v, false, b); }},
    Filter{"last", [](const Value& v, const Arguments&, TemplateBudget& b) { return first_or_last(v, true, b); }},
    Filter{"list", list},
    Filter{"items", pairs},
    Filter{"dictsort", sorted_pairs},
    Filter{"sort", sorted},
    Filter{"unique", unique},
    Filter{"reverse", reverse},
    Filter{"map", map},
    Filter{"select", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, false, true); }},
    Filter{"reject", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, false, false); }},
    Filter{"selectattr", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, true, true); }},
    Filter{"rejectattr", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, true, false); }},
    Filter{"int", to_integer},
    Filter{"float", to_real},
    Filter{"abs", absolute},
    Filter{"indent", indented},
    Filter{"escape", escaped},
    Filter{"e", escaped},
    Filter{"safe", [](const Value& v, const Arguments&, TemplateBudget&) { return Value::text(soft(v)); }},
    Filter{"string", [](const Value& v, const Arguments&, TemplateBudget&) { return Value::text(soft(v)); }},
    Filter{"upper", [](const Value& v, const Arguments&, TemplateBudget&) { return Value::text(upper(soft(v))); }},
    Filter{"lower", [](const Value& v, const Arguments&, TemplateBudget&) { return Value::text(lower(soft(v))); }},
    Filter{"title", [](const Value& v, const Arguments&, TemplateBudget&) { return Value::text(title(soft(v))); }},
    Filter{"capitalize", [](const Value& v, const Arguments&, TemplateBudget&) { return Value::text(capitalized(soft(v))); }},
};

}  // namespace

TemplateValue apply_filter(const std::string& name, const TemplateValue& value, const TemplateArguments& arguments, TemplateBudget& budget) {
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(), [&](const Filter& filter) { return filter.name == name; });
  if (found == kFilters.end()) throw TemplateProblem{Code::kUnimplemented, fmt::format("the filter '{}' is not supported", name)};
  TemplateValue result = found->apply(value, arguments, budget);
  if (result.is_text()) budget.spend_bytes(result.as_text().size());
  if (result.is_list()) budget.spend(static_cast<int64_t>(result.as_list().size()));
  return result;
}

}  // namespace penstock::text
