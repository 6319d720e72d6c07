// Jinja's filters of lists and dicts, as far as chat templates use them.
#include <algorithm>
#include <array>

#include "text/template_filters.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

using Value = TemplateValue;
using Arguments = TemplateArguments;

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

Value first_or_last(const Value& value, bool last, TemplateBudget& budget) {
  const std::vector<Value> items = items_of(value, budget);
  if (items.empty()) return Value::undefined("No item, sequence was empty.");
  return last ? items.back() : items.front();
}

Value list(const Value& value, const Arguments&, TemplateBudget& budget) { return Value::list(items_of(value, budget)); }

Value pairs(const Value& value, const Arguments&, TemplateBudget& budget) {
  if (value.is_undefined()) return Value::generator({});
  if (!value.is_dict()) throw template_problem("Can only get item pairs from a mapping.");
  return Value::generator(call_method(value, "items", {}, budget).as_list());
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

Value folded(const Value& value, bool exact) { return value.is_text() && !exact ? Value::text(lower(value.as_text())) : value; }

Value attribute_or_item(const Value& item, const Value* attribute) {
  return attribute == nullptr || attribute->is_none() ? item : path_of(item, attribute->shown());
}

Value unique(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const bool exact = arguments.flag_or(0, "case_sensitive", false);
  const Value* attribute = arguments.find(1, "attribute");
  std::vector<Value> seen, items;
  for (const Value& item : items_of(value, budget)) {
    const Value key = folded(attribute_or_item(item, attribute), exact);
    budget.spend(static_cast<int64_t>(seen.size()));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return other.equals(key); })) continue;
    seen.push_back(key);
    items.push_back(item);
  }
  return Value::generator(std::move(items));
}

Value extreme(const Value& value, const Arguments& arguments, TemplateBudget& budget, bool largest) {
  const bool exact = arguments.flag_or(0, "case_sensitive", false);
  const Value* attribute = arguments.find(1, "attribute");
  const std::vector<Value> items = items_of(value, budget);
  if (items.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  const Value* best = &items.front();
  Value best_key = folded(attribute_or_item(*best, attribute), exact);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = folded(attribute_or_item(items[i], attribute), exact);
    if (largest ? compare(key, best_key) <= 0 : compare(key, best_key) >= 0) continue;
    best = &items[i];
    best_key = std::move(key);
  }
  return *best;
}

Value sum(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* attribute = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value total = start == nullptr ? Value::integer(0) : *start;
  for (const Value& item : items_of(value, budget)) total = arithmetic("+", total, attribute_or_item(item, attribute), budget);
  return total;
}

Value reverse(const Value& value, const Arguments&, TemplateBudget& budget) {
  std::vector<Value> items = items_of(value, budget);
  std::reverse(items.begin(), items.end());
  if (!value.is_text()) return Value::generator(std::move(items));
  std::string text;
  for (const Value& item : items) text += item.as_text();
  return Value::text(std::move(text));
}

Arguments without_first(const Arguments& arguments, size_t count) {
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin(), rest.positional.begin() + static_cast<ptrdiff_t>(std::min(count, rest.positional.size())));
  return rest;
}

// map, select and their kin take none, 0 and false for an empty list.
std::vector<Value> items_if_any(const Value& value, TemplateBudget& budget) { return value.truth() ? items_of(value, budget) : std::vector<Value>{}; }

Value map(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* attribute = nullptr;
  const Value* missing = nullptr;
  for (const auto& [name, given] : arguments.named) {
    if (name == "attribute") attribute = &given;
    if (name == "default") missing = &given;
  }
  std::vector<Value> items;
  for (const Value& item : items_if_any(value, budget)) {
    budget.spend(1);
    if (attribute == nullptr) {
      items.push_back(apply_filter(arguments.text(0, "the name of a filter"), item, without_first(arguments, 1), budget));
      continue;
    }
    Value member = path_of(item, attribute->shown());
    items.push_back(member.is_undefined() && missing != nullptr ? *missing : std::move(member));
  }
  return Value::generator(std::move(items));
}

// select, reject, selectattr, rejectattr: items for which a test holds, of themselves or of an attribute. Without a test: truth.
Value choose(const Value& value, const Arguments& arguments, TemplateBudget& budget, bool by_attribute, bool wanted) {
  const size_t test_at = by_attribute ? 1 : 0;
  std::vector<Value> items;
  for (const Value& item : items_if_any(value, budget)) {
    budget.spend(1);
    const Value subject = by_attribute ? path_of(item, arguments.require(0, "attribute").shown()) : item;
    const bool holds = arguments.positional.size() > test_at
                           ? apply_test(arguments.text(test_at, "the name of a test"), subject, without_first(arguments, test_at + 1))
                           : subject.truth();
    if (holds == wanted) items.push_back(item);
  }
  return Value::generator(std::move(items));
}

constexpr std::array kFilters = {
    TemplateFilter{"join", join},
    TemplateFilter{"first", [](const Value& v, const Arguments&, TemplateBudget& b) { return first_or_last(v, false, b); }},
    TemplateFilter{"last", [](const Value& v, const Arguments&, TemplateBudget& b) { return first_or_last(v, true, b); }},
    TemplateFilter{"list", list},
    TemplateFilter{"items", pairs},
    TemplateFilter{"dictsort", sorted_pairs},
    TemplateFilter{"sort", sorted},
    TemplateFilter{"unique", unique},
    TemplateFilter{"reverse", reverse},
    TemplateFilter{"min", [](const Value& v, const Arguments& a, TemplateBudget& b) { return extreme(v, a, b, false); }},
    TemplateFilter{"max", [](const Value& v, const Arguments& a, TemplateBudget& b) { return extreme(v, a, b, true); }},
    TemplateFilter{"sum", sum},
    TemplateFilter{"map", map},
    TemplateFilter{"select", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, false, true); }},
    TemplateFilter{"reject", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, false, false); }},
    TemplateFilter{"selectattr", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, true, true); }},
    TemplateFilter{"rejectattr", [](const Value& v, const Arguments& a, TemplateBudget& b) { return choose(v, a, b, true, false); }},
};

}  // namespace

const TemplateFilter* list_filter(const std::string& name) {
  const auto* found = std::find_if(kFilters.begin(), kFilters.end(), [&](const TemplateFilter& filter) { return filter.name == name; });
  return found == kFilters.end() ? nullptr : found;
}

}  // namespace penstock::text
