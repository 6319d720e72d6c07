// The operators + - * / // % ** of chat templates, as Python has them.
#include <cmath>

#include "text/template_builtins.h"
#include "text/template_format.h"
#include "text/template_text.h"

namespace penstock::text {
namespace {

void require_defined(const TemplateValue& value) {
  if (value.is_undefined()) throw template_problem("{}", value.why_undefined());
}

// As CPython's float_divmod: the quotient is that of what the rest leaves, as a / b itself may round up to a whole number.
TemplateValue floored(const std::string& operation, double a, double b) {
  if (b == 0) throw template_problem("division by zero");
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest == 0) {
    rest = std::copysign(0.0, b);
  } else if ((rest < 0) != (b < 0)) {
    rest += b;
    quotient -= 1;
  }
  if (operation == "%") return TemplateValue::real(rest);
  if (quotient == 0) return TemplateValue::real(std::copysign(0.0, a / b));
  const double whole = std::floor(quotient);
  return TemplateValue::real(quotient - whole > 0.5 ? whole + 1 : whole);
}

TemplateValue power(double a, double b) {
  if (a == 0 && b < 0) throw template_problem("0.0 cannot be raised to a negative power");
  if (a < 0 && b != std::floor(b)) throw TemplateProblem{Code::kUnimplemented, "complex numbers are not supported"};
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) throw template_problem("a number too large for **");
  return TemplateValue::real(result);
}

// REQUIRES: b >= 0.
TemplateValue power_of_integers(int64_t a, int64_t b) {
  int64_t result = 1;
  if (a == 0 || a == 1) return TemplateValue::integer(b == 0 ? 1 : a);
  if (a == -1) return TemplateValue::integer(b % 2 == 0 ? 1 : -1);
  for (; b > 0; --b) {
    if (__builtin_mul_overflow(result, a, &result)) throw template_problem("an integer of more than 64 bits");
  }
  return TemplateValue::integer(result);
}

TemplateValue integers(const std::string& operation, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (operation == "+") overflow = __builtin_add_overflow(a, b, &result);
  else if (operation == "-") overflow = __builtin_sub_overflow(a, b, &result);
  else if (operation == "*") overflow = __builtin_mul_overflow(a, b, &result);
  else if (operation == "**") return power_of_integers(a, b);
  else if (b == 0) throw template_problem("division by zero");
  else if (b == -1) overflow = operation == "//" && __builtin_sub_overflow(int64_t{0}, a, &result);
  else {
    const int64_t rest = a % b;
    const bool down = rest != 0 && (rest < 0) != (b < 0);  // Python rounds down
    result = operation == "//" ? a / b - down : rest + (down ? b : 0);
  }
  if (overflow) throw template_problem("an integer of more than 64 bits");
  return TemplateValue::integer(result);
}

TemplateValue numbers(const std::string& operation, const TemplateValue& a, const TemplateValue& b) {
  if (operation == "/") {
    if (b.as_real() == 0) throw template_problem("division by zero");
    return TemplateValue::real(a.as_real() / b.as_real());
  }
  if (!a.is_real() && !b.is_real() && (operation != "**" || b.as_integer() >= 0)) return integers(operation, a.as_integer(), b.as_integer());
  if (operation == "+") return TemplateValue::real(a.as_real() + b.as_real());
  if (operation == "-") return TemplateValue::real(a.as_real() - b.as_real());
  if (operation == "*") return TemplateValue::real(a.as_real() * b.as_real());
  if (operation == "**") return power(a.as_real(), b.as_real());
  return floored(operation, a.as_real(), b.as_real());
}

TemplateValue repeated(const TemplateValue& value, int64_t count, TemplateBudget& budget) {
  std::string text;
  std::vector<TemplateValue> items;
  for (int64_t i = 0; i < count; ++i) {
    if (value.is_text()) {
      budget.spend_bytes(value.as_text().size());
      text += value.as_text();
    } else {
      budget.spend(1 + static_cast<int64_t>(value.as_list().size()));
      items.insert(items.end(), value.as_list().begin(), value.as_list().end());
    }
  }
  return value.is_text() ? TemplateValue::text(std::move(text), value.is_safe()) : TemplateValue::list(std::move(items), value.is_tuple());
}

}  // namespace

TemplateValue arithmetic(const std::string& operation, const TemplateValue& a, const TemplateValue& b, TemplateBudget& budget) {
  require_defined(a);
  if (operation == "%" && a.is_text()) return TemplateValue::text(formatted_by_percent(a.as_text(), b, a.is_safe(), budget), a.is_safe());
  require_defined(b);
  if (a.is_number() && b.is_number()) return numbers(operation, a, b);
  if (operation == "+" && a.is_text() && b.is_text()) {
    const bool safe = a.is_safe() || b.is_safe();
    const auto part = [safe](const TemplateValue& text) { return safe && !text.is_safe() ? escaped(text.as_text()) : text.as_text(); };
    std::string text = part(a) + part(b);
    budget.spend_bytes(text.size());
    return TemplateValue::text(std::move(text), safe);
  }
  if (operation == "*" && b.is_integer() && (a.is_text() || a.is_list())) return repeated(a, b.as_integer(), budget);
  if (operation == "*" && a.is_integer() && (b.is_text() || b.is_list())) return repeated(b, a.as_integer(), budget);
  if (operation == "+" && a.is_list() && b.is_list() && a.is_tuple() == b.is_tuple()) {
    std::vector<TemplateValue> items = a.as_list();
    items.insert(items.end(), b.as_list().begin(), b.as_list().end());
    budget.spend(static_cast<int64_t>(items.size()));
    return TemplateValue::list(std::move(items), a.is_tuple());
  }
  if (operation == "+" && a.is_text()) throw template_problem("can only concatenate str (not \"{}\") to str", b.type_name());
  throw template_problem("unsupported operand type(s) for {}: '{}' and '{}'", operation, a.type_name(), b.type_name());
}

}  // namespace penstock::text
