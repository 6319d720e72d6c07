// Jinja's filters of texts and numbers, as far as chat templates use them; those of lists are in template_list_filters.cpp.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/template_filters.h"
#include "text/template_format.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

using Value = TemplateValue;
using Arguments = TemplateArguments;

// Text filters take anything, as it is shown.
std::string soft(const Value& value, TemplateBudget& budget) {
  budget.spend_bytes(value.bytes());
  return value.shown();
}

Value trim(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  const Value* characters = arguments.find(0, "chars");
  if (characters == nullptr || characters->is_none()) return Value::text(stripped(soft(value, budget), true, true), value.is_safe());
  budget.spend_bytes(16 * characters->bytes());  // they are sorted
  return Value::text(stripped_of(soft(value, budget), arguments.text(0, "chars"), true, true), value.is_safe());
}

Value length(const Value& value, const Arguments&, TemplateBudget& budget) {
  if (value.is_undefined()) return Value::integer(0);
  if (value.is_list()) return Value::integer(static_cast<int64_t>(value.as_list().size()));
  if (value.is_dict()) return Value::integer(static_cast<int64_t>(value.as_dict().size()));
  if (!value.is_text()) throw template_problem("object of type '{}' has no len()", value.type_name());
  const std::string& text = value.as_text();
  budget.spend_bytes(text.size());
  return Value::integer(std::count_if(text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }));
}

Value otherwise(const Value& value, const Arguments& arguments, TemplateBudget&) {
  const bool missing = value.is_undefined() || (arguments.flag_or(1, "boolean", false) && !value.truth());
  if (!missing) return value;
  const Value* other = arguments.find(0, "default_value");
  return other == nullptr ? Value::text("") : *other;
}

// The arguments are those of `transformers`' own filter: ensure_ascii, indent, separators, sort_keys.
Value to_json_text(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  TemplateJsonForm form;
  const Value* indent = arguments.find(1, "indent");
  if (indent != nullptr && !indent->is_none() && !(indent->is_boolean() && !indent->truth())) {
    if (!indent->is_number() || indent->is_real() || indent->as_integer() > 16) throw template_problem("tojson: expected an indent from 0 to 16");
    form.indent = static_cast<int>(std::max<int64_t>(0, indent->as_integer()));
    form.between_items = ",";
  }
  const Value* separators = arguments.find(2, "separators");
  if (separators != nullptr && !separators->is_none()) {
    const bool two = separators->is_list() && separators->as_list().size() == 2 && separators->as_list()[0].is_text() && separators->as_list()[1].is_text();
    if (!two) throw template_problem("tojson: expected two texts as separators");
    budget.spend_bytes(separators->bytes());
    form.between_items = separators->as_list()[0].as_text();
    form.behind_key = separators->as_list()[1].as_text();
  }
  form.ascii = arguments.flag_or(0, "ensure_ascii", false);
  form.sort_keys = arguments.flag_or(3, "sort_keys", false);
  return Value::text(to_json(value, form, budget));
}

Value replace(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  return Value::text(replaced(soft(value, budget), arguments.text(0, "old"), arguments.text(1, "new"), arguments.integer_or(2, "count", -1), budget));
}

Value to_integer(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  if (value.is_real() && std::abs(value.as_real()) < 9e18) return Value::integer(static_cast<int64_t>(value.as_real()));
  if (value.is_number() && !value.is_real()) return Value::integer(value.as_integer());
  const std::string text = stripped(soft(value, budget), true, true);
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

Value to_real(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  if (value.is_number()) return Value::real(value.as_real());
  const std::string text = stripped(soft(value, budget), true, true);
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
  std::vector<std::string> lines = split_at(soft(value, budget), "\n", -1);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i == 0 ? first : blank || !lines[i].empty()) out += margin;
    out += lines[i];
    budget.spend_bytes(margin.size() + lines[i].size());
  }
  return Value::text(std::move(out), value.is_safe());
}

Value rounded(const Value& value, const Arguments& arguments, TemplateBudget&) {
  const int64_t precision = arguments.integer_or(0, "precision", 0);
  const Value* method = arguments.find(1, "method");
  const std::string how = method == nullptr ? "common" : method->is_text() ? method->as_text().substr(0, 10) : "";
  if (!value.is_number()) throw template_problem("round: expected a number, found {}", value.type_name());
  if (precision < 0 || precision > 15) throw TemplateProblem{Code::kUnimplemented, fmt::format("round to {} digits is not supported", precision)};
  if (how == "common") {
    if (!value.is_real()) return Value::integer(value.as_integer());
    return Value::real(std::strtod(fmt::format("{:.{}f}", value.as_real(), precision).c_str(), nullptr));  // exact, halves to even
  }
  if (how != "ceil" && how != "floor") throw template_problem("round: method must be common, ceil or floor");
  const double scale = std::pow(10.0, static_cast<double>(precision)), scaled = value.as_real() * scale;
  return Value::real((how == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value format(const Value& value, const Arguments& arguments, TemplateBudget& budget) {
  if (!arguments.named.empty()) throw TemplateProblem{Code::kUnimplemented, "the filter 'format' with names is not supported"};
  return Value::text(formatted_by_percent(soft(value, budget), Value::list(arguments.positional, /*tuple=*/true), value.is_safe(), budget), value.is_safe());
}

Value escape(const Value& value, const Arguments&, TemplateBudget& budget) { return value.is_safe() ? value : Value::text(escaped(soft(value, budget)), /*safe=*/true); }

constexpr std::array kFilters = {
    TemplateFilter{"trim", trim},
    TemplateFilter{"length", length},
    TemplateFilter{"count", length},
    TemplateFilter{"default", otherwise},
    TemplateFilter{"d", otherwise},
    TemplateFilter{"tojson", to_json_text},
    TemplateFilter{"replace", replace},
    TemplateFilter{"int", to_integer},
    TemplateFilter{"float", to_real},
    TemplateFilter{"abs", absolute},
    TemplateFilter{"indent", indented},
    TemplateFilter{"round", rounded},
    TemplateFilter{"format", format},
    TemplateFilter{"escape", escape},
    TemplateFilter{"e", escape},
    TemplateFilter{"safe", [](const Value& v, const Arguments&, TemplateBudget& b) { return Value::text(soft(v, b), true); }},
    TemplateFilter{"string", [](const Value& v, const Arguments&, TemplateBudget& b) { return Value::text(soft(v, b), v.is_safe()); }},
    TemplateFilter{"upper", [](const Value& v, const Arguments&, TemplateBudget& b) { return Value::text(upper(soft(v, b)), v.is_safe()); }},
    TemplateFilter{"lower", [](const Value& v, const Arguments&, TemplateBudget& b) { return Value::text(lower(soft(v, b)), v.is_safe()); }},
    TemplateFilter{"title", [](const Value& v, const Arguments&, TemplateBudget& b) { return Value::text(title_of_words(soft(v, b))); }},
    TemplateFilter{"capitalize", [](const Value& v, const Arguments&, TemplateBudget& b) { return Value::text(capitalized(soft(v, b)), v.is_safe()); }},
};

}  // namespace

TemplateValue apply_filter(const std::string& name, const TemplateValue& value, const TemplateArguments& arguments, TemplateBudget& budget) {
  const auto* own = std::find_if(kFilters.begin(), kFilters.end(), [&](const TemplateFilter& filter) { return filter.name == name; });
  const TemplateFilter* found = own != kFilters.end() ? own : list_filter(name);
  if (found == nullptr) throw TemplateProblem{Code::kUnimplemented, fmt::format("the filter '{}' is not supported", name)};
  TemplateValue result = found->apply(value, arguments, budget);
  if (result.is_text()) budget.spend_bytes(result.as_text().size());
  if (result.is_list()) budget.spend(static_cast<int64_t>(result.as_list().size()));
  return result;
}

}  // namespace penstock::text
