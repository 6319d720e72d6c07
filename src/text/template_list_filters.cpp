// Jinja's filters of lists and dicts, as far as chat templates use them.
#include <algorithm>
#include <array>

#include "text/template_filters.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

using Value = TemplateValue;
using Arguments = TemplateArguments;

Value attribute_or_item(const Value& item, const Value* attribute, TemplateBudget& budget) {
  if (attribute == nullptr || attribute->is_none()) return item;
  budget.spend_bytes(attribute->bytes());
  return path_of(item, attribute->shown(), budget);
}

Value join(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* between = arguments.find(0, "d");
  budget.spend_bytes(between == nullptr ? 0 : between->bytes());
  const std::string separator = between == nullptr ? "" : between->shown();
  const Value* attribute = arguments.find(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : items_of(value, budget)) {
    const Value part = attribute_or_item(item, attribute, budget);
    budget.spend_bytes(separator.size() + part.bytes());
    if (!first) out += separator;
    first = false;
    out += part.shown();
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

Value folded(const Value& value, bool exact, TemplateBudget& budget) {
  if (!value.is_text() || exact) return value;
  budget.spend_bytes(value.bytes());
  return Value::text(lower(value.as_text()));
}

using Keyed = std::pair<Value, Value>;

// What stands behind the keys, in their order. Sorts pointers: GCC 12 makes a std::rotate of pairs whose table entry, an empty one, hides the
// next function's from the unwinder, and an exception of compare() would end the process.
Value sorted_by_keys(const std::vector<Keyed>& keyed, bool reverse, TemplateBudget& budget) {
  budget.spend(10 * static_cast<int64_t>(keyed.size()));
  std::vector<const Keyed*> order;
  for (const Keyed& pair : keyed) order.push_back(&pair);
  std::stable_sort(order.begin(), order.end(), [&](const Keyed* a, const Keyed* b) {
    const int sign = compare(a->first, b->first, budget);
    return reverse ? sign > 0 : sign < 0;
  });
  std::vector<Value> items;
  for (const Keyed* pair : order) items.push_back(pair->second);
  return Value::list(std::move(items));
}

Value sorted_pairs(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* by = arguments.find(1, "by");
  const bool by_value = by != nullptr && by->is_text() && by->as_text() == "value";
  const bool exact = arguments.flag_or(0, "case_sensitive", false);
  std::vector<Keyed> keyed;
  const Value all = pairs(value, {}, budget);
  for (const Value& pair : all.as_list()) keyed.emplace_back(folded(pair.as_list()[by_value ? 1 : 0], exact, budget), pair);
  return sorted_by_keys(keyed, arguments.flag_or(2, "reverse", false), budget);
}

Value sorted(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* attribute = arguments.find(2, "attribute");
  const bool exact = arguments.flag_or(1, "case_sensitive", false);
  std::vector<Keyed> keyed;
  for (const Value& item : items_of(value, budget)) {
    keyed.emplace_back(folded(attribute_or_item(item, attribute, budget), exact, budget), item);
  }
  return sorted_by_keys(keyed, arguments.flag_or(0, "reverse", false), budget);
}

Value unique(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const bool exact = arguments.flag_or(0, "case_sensitive", false);
  const Value* attribute = arguments.find(1, "attribute");
  std::vector<Value> seen, items;
  for (const Value& item : items_of(value, budget)) {
    const Value key = folded(attribute_or_item(item, attribute, budget), exact, budget);
    budget.spend(static_cast<int64_t>(seen.size()));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& other) { return equal(other, key, budget); })) continue;
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
  Value best_key = folded(attribute_or_item(*best, attribute, budget), exact, budget);
  for (size_t i = 1; i < items.size(); ++i) {
    Value key = folded(attribute_or_item(items[i], attribute, budget), exact, budget);
    if (largest ? compare(key, best_key, budget) <= 0 : compare(key, best_key, budget) >= 0) continue;
    best = &items[i];
    best_key = std::move(key);
  }
  return *best;
}

Value sum(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* attribute = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value total = start == nullptr ? Value::integer(0) : *start;
  for (const Value& item : items_of(value, budget)) total = arithmetic("+", total, attribute_or_item(item, attribute, budget), budget);
  return total;
}

Value reverse(const Value& value, const Arguments&, TemplateBudget& budget) {
  std::vector<Value> items = items_of(value, budget);
  std::reverse(items.begin(), items.end());
  if (!value.is_text()) return Value::generator(std::move(items));
  std::string text;
  for (const Value& item : items) text += item.as_text();
  return Value::text(std::move(text), value.is_safe());
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
  const Arguments rest = without_first(arguments, 1);
  std::vector<Value> items;
  for (const Value& item : items_if_any(value, budget)) {
    budget.spend(1);
    if (attribute == nullptr) {
      const std::string& name = arguments.text(0, "the name of a filter");
      if (name == "map") throw TemplateProblem{Code::kUnimplemented, "map of map is not supported"};
      items.push_back(apply_filter(name, item, rest, budget));
      continue;
    }
    Value member = attribute_or_item(item, attribute, budget);
    items.push_back(member.is_undefined() && missing != nullptr ? *missing : std::move(member));
  }
  return Value::generator(std::move(items));
}

// select, reject, selectattr, rejectattr: items for which a test holds, of themselves or of an attribute. Without a test: truth.
Value choose(const Value& value, const Arguments& arguments, TemplateBudget& budget, bool by_attribute, bool wanted) {
  const size_t test_at = by_attribute ? 1 : 0;
  const Arguments rest = without_first(arguments, test_at + 1);
  std::vector<Value> items;
  for (const Value& item : items_if_any(value, budget)) {
    budget.spend(1);
    const Value subject = by_attribute ? attribute_or_item(item, &arguments.require(0, "attribute"), budget) : item;
    const bool holds = arguments.positional.size() > test_at
                           ? apply_test(arguments.text(test_at, "the name of a test"), subject, rest, budget)
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
