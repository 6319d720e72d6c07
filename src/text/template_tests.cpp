// Jinja's tests: what may stand behind `is`.
#include <algorithm>
#include <array>

#include "text/template_builtins.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

using Value = TemplateValue;
using Arguments = TemplateArguments;
using Budget = TemplateBudget;

int64_t integer_of(const Value& value) {
  if (value.is_undefined()) throw template_problem("{}", value.why_undefined());
  if (!value.is_number() || value.is_real()) throw template_problem("expected an integer, found {}", value.type_name());
  return value.as_integer();
}

bool divisible(const Value& value, int64_t by) {
  if (by == 0) throw template_problem("integer modulo by zero");
  return by == -1 || integer_of(value) % by == 0;
}

// For tests that make a text of other letters twice.
std::string shown(const Value& value, Budget& budget) {
  budget.spend_bytes(4 * value.bytes());
  return value.shown();
}

struct Test {
  const char* name;
  bool (*holds)(const Value& value, const Arguments& arguments, Budget& budget);
};

constexpr auto kEqual = [](const Value& v, const Arguments& a, Budget& b) { return equal(v, a.require(0, "other"), b); };
constexpr auto kUnequal = [](const Value& v, const Arguments& a, Budget& b) { return !equal(v, a.require(0, "other"), b); };
constexpr auto kLess = [](const Value& v, const Arguments& a, Budget& b) { return compare(v, a.require(0, "other"), b) < 0; };
constexpr auto kAtMost = [](const Value& v, const Arguments& a, Budget& b) { return compare(v, a.require(0, "other"), b) <= 0; };
constexpr auto kGreater = [](const Value& v, const Arguments& a, Budget& b) { return compare(v, a.require(0, "other"), b) > 0; };
constexpr auto kAtLeast = [](const Value& v, const Arguments& a, Budget& b) { return compare(v, a.require(0, "other"), b) >= 0; };

constexpr std::array kTests = {
    Test{"defined", [](const Value& v, const Arguments&, Budget&) { return !v.is_undefined(); }},
    Test{"undefined", [](const Value& v, const Arguments&, Budget&) { return v.is_undefined(); }},
    Test{"none", [](const Value& v, const Arguments&, Budget&) { return v.is_none(); }},
    Test{"string", [](const Value& v, const Arguments&, Budget&) { return v.is_text(); }},
    Test{"mapping", [](const Value& v, const Arguments&, Budget&) { return v.is_dict(); }},
    Test{"sequence", [](const Value& v, const Arguments&, Budget&) { return v.is_text() || (v.is_list() && !v.is_generator()) || v.is_dict() || v.is_undefined(); }},
    Test{"iterable", [](const Value& v, const Arguments&, Budget&) { return v.is_text() || v.is_list() || v.is_dict() || v.is_undefined(); }},
    Test{"number", [](const Value& v, const Arguments&, Budget&) { return v.is_number(); }},
    Test{"integer", [](const Value& v, const Arguments&, Budget&) { return v.is_integer(); }},
    Test{"float", [](const Value& v, const Arguments&, Budget&) { return v.is_real(); }},
    Test{"boolean", [](const Value& v, const Arguments&, Budget&) { return v.is_boolean(); }},
    Test{"true", [](const Value& v, const Arguments&, Budget&) { return v.is_boolean() && v.truth(); }},
    Test{"false", [](const Value& v, const Arguments&, Budget&) { return v.is_boolean() && !v.truth(); }},
    Test{"callable", [](const Value& v, const Arguments&, Budget&) { return v.as_callable() != nullptr || v.is_undefined(); }},
    Test{"odd", [](const Value& v, const Arguments&, Budget&) { return integer_of(v) % 2 != 0; }},
    Test{"even", [](const Value& v, const Arguments&, Budget&) { return integer_of(v) % 2 == 0; }},
    Test{"divisibleby", [](const Value& v, const Arguments& a, Budget&) { return divisible(v, integer_of(a.require(0, "num"))); }},
    Test{"lower", [](const Value& v, const Arguments&, Budget& b) { return is_lower(shown(v, b)); }},
    Test{"upper", [](const Value& v, const Arguments&, Budget& b) { return is_upper(shown(v, b)); }},
    Test{"in", [](const Value& v, const Arguments& a, Budget& b) { return contains(a.require(0, "seq"), v, b); }},
    Test{"sameas",
         [](const Value& v, const Arguments& a, Budget& b) {
           const Value& other = a.require(0, "other");
           return v.is_boolean() == other.is_boolean() && v.is_real() == other.is_real() && equal(v, other, b);
         }},
    Test{"eq", kEqual},
    Test{"equalto", kEqual},
    Test{"ne", kUnequal},
    Test{"lt", kLess},
    Test{"lessthan", kLess},
    Test{"le", kAtMost},
    Test{"gt", kGreater},
    Test{"greaterthan", kGreater},
    Test{"ge", kAtLeast},
    // As names in select() and its kin.
    Test{"==", kEqual},
    Test{"!=", kUnequal},
    Test{"<", kLess},
    Test{"<=", kAtMost},
    Test{">", kGreater},
    Test{">=", kAtLeast},
};

}  // namespace

bool apply_test(const std::string& name, const TemplateValue& value, const TemplateArguments& arguments, TemplateBudget& budget) {
  const auto* found = std::find_if(kTests.begin(), kTests.end(), [&](const Test& test) { return test.name == name; });
  if (found == kTests.end()) throw TemplateProblem{Code::kUnimplemented, fmt::format("the test '{}' is not supported", name)};
  return found->holds(value, arguments, budget);
}

}  // namespace penstock::text
