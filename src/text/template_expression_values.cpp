// The expressions of a chat template, evaluated.
#include <algorithm>
#include <cmath>
#include <optional>

#include "text/template_evaluator.h"
#include "text/template_lexer.h"
#include "text/characters.h"

namespace penstock::text {

using Kind = TemplateExpression::Kind;

namespace {

constexpr int64_t kMaxRange = 100'000;  // as Jinja's sandbox

bool holds(const std::string& operation, const TemplateValue& a, const TemplateValue& b, TemplateBudget& budget) {
  if (operation == "==") return equal(a, b, budget);
  if (operation == "!=") return !equal(a, b, budget);
  if (operation == "in") return contains(b, a, budget);
  if (operation == "not in") return !contains(b, a, budget);
  const int order = compare(a, b, budget);
  if (operation == "<") return order < 0;
  if (operation == "<=") return order <= 0;
  return operation == ">" ? order > 0 : order >= 0;
}

}  // namespace

TemplateValue TemplateEvaluator::evaluate(const TemplateExpression& e) {
  try {
    budget_.spend(1);
    return compute(e);
  } catch (const TemplateProblem& problem) {
    throw template_error(problem.code, e.line, "{}", problem.what);
  }
}

TemplateValue TemplateEvaluator::compute(const TemplateExpression& e) {
  switch (e.kind) {
    case Kind::kConstant:
      return e.constant;
    case Kind::kName:
      return look_up(e.name);
    case Kind::kList:
    case Kind::kTuple:
      return make_list(e);
    case Kind::kDict:
      return make_dict(e);
    case Kind::kAttribute:
      return attribute_of(evaluate(*e.parts[0]), e.name);
    case Kind::kItem:
      return item_of(evaluate(*e.parts[0]), evaluate(*e.parts[1]), budget_);
    case Kind::kSlice:
      return slice(e);
    case Kind::kCall:
      return call(e);
    case Kind::kFilter: {
      const TemplateValue value = evaluate(*e.parts[0]);
      return apply_filter(e.name, value, arguments_of(e), budget_);
    }
    case Kind::kTest: {
      const TemplateValue value = evaluate(*e.parts[0]);
      return TemplateValue::boolean(apply_test(e.name, value, arguments_of(e), budget_));
    }
    case Kind::kNot:
      return TemplateValue::boolean(!evaluate(*e.parts[0]).truth());
    case Kind::kNegative:
    case Kind::kPositive:
      return signed_value(e);
    case Kind::kAnd: {
      TemplateValue left = evaluate(*e.parts[0]);
      return left.truth() ? evaluate(*e.parts[1]) : left;
    }
    case Kind::kOr: {
      TemplateValue left = evaluate(*e.parts[0]);
      return left.truth() ? left : evaluate(*e.parts[1]);
    }
    case Kind::kCompare:
      return compare_all(e);
    case Kind::kArithmetic:
      return arithmetic(e.name, evaluate(*e.parts[0]), evaluate(*e.parts[1]), budget_);
    case Kind::kJoin: {
      const TemplateValue left = evaluate(*e.parts[0]);
      std::string text = left.shown() + evaluate(*e.parts[1]).shown();
      budget_.spend_bytes(text.size());
      return TemplateValue::text(std::move(text));
    }
    case Kind::kCondition:
      if (evaluate(*e.parts[1]).truth()) return evaluate(*e.parts[0]);
      return e.parts[2] ? evaluate(*e.parts[2]) : TemplateValue::undefined("the inline if-expression evaluated to false and no else section was defined.");
  }
  return {};
}

TemplateValue TemplateEvaluator::look_up(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    if (const auto found = scope->find(name); found != scope->end()) return found->second;
  }
  return TemplateValue::undefined(fmt::format("'{}' is undefined", name));
}

TemplateValue TemplateEvaluator::make_list(const TemplateExpression& e) {
  std::vector<TemplateValue> items;
  for (const ExpressionPtr& part : e.parts) items.push_back(evaluate(*part));
  return TemplateValue::list(std::move(items), e.kind == Kind::kTuple);
}

TemplateValue TemplateEvaluator::make_dict(const TemplateExpression& e) {
  TemplateValue::Dict items;
  for (size_t i = 0; i + 1 < e.parts.size(); i += 2) {
    TemplateValue key = evaluate(*e.parts[i]);
    if (!key.can_be_key()) throw TemplateProblem{Code::kUnimplemented, fmt::format("a {} as the key of a dict is not supported", key.type_name())};
    budget_.spend_bytes(key.bytes());
    items.emplace_back(std::move(key), evaluate(*e.parts[i + 1]));
  }
  return TemplateValue::dict(std::move(items));
}

TemplateValue TemplateEvaluator::slice(const TemplateExpression& e) {
  const TemplateValue base = evaluate(*e.parts[0]);
  if (base.is_undefined()) throw template_problem("{}", base.why_undefined());
  const auto bound = [&](size_t part) -> std::optional<int64_t> {
    if (!e.parts[part]) return std::nullopt;
    const TemplateValue value = evaluate(*e.parts[part]);
    if (value.is_none()) return std::nullopt;
    if (!value.is_integer()) throw template_problem("slice indices must be integers or None");
    return value.as_integer();
  };
  const std::optional<int64_t> from = bound(1), to = bound(2);
  const int64_t step = bound(3).value_or(1);
  if (step == 0) throw template_problem("slice step cannot be zero");
  if (!base.is_list() && !base.is_text()) throw template_problem("'{}' object is not subscriptable", base.type_name());
  const std::vector<TemplateValue> items = items_of(base, budget_);
  const auto size = static_cast<int64_t>(items.size());
  const int64_t lowest = step > 0 ? 0 : -1, highest = step > 0 ? size : size - 1;
  const auto place = [&](const std::optional<int64_t>& index, int64_t otherwise) {
    if (!index) return otherwise;
    return std::clamp(*index < 0 ? std::max(*index, -size - 1) + size : *index, lowest, highest);
  };
  std::vector<TemplateValue> chosen;
  const int64_t end = place(to, step > 0 ? highest : lowest);
  const int64_t stride = std::clamp(step, -size - 1, size + 1);  // no farther than out of the list
  for (int64_t i = place(from, step > 0 ? lowest : highest); step > 0 ? i < end : i > end; i += stride) chosen.push_back(items[static_cast<size_t>(i)]);
  if (base.is_list()) return TemplateValue::list(std::move(chosen), base.is_tuple());
  std::string text;
  for (const TemplateValue& character : chosen) text += character.as_text();
  return TemplateValue::text(std::move(text), base.is_safe());
}

TemplateValue TemplateEvaluator::compare_all(const TemplateExpression& e) {
  TemplateValue left = evaluate(*e.parts[0]);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    TemplateValue right = evaluate(*e.parts[i + 1]);
    if (!holds(e.operators[i], left, right, budget_)) return TemplateValue::boolean(false);
    left = std::move(right);
  }
  return TemplateValue::boolean(true);
}

TemplateValue TemplateEvaluator::signed_value(const TemplateExpression& e) {
  const TemplateValue value = evaluate(*e.parts[0]);
  if (value.is_undefined()) throw template_problem("{}", value.why_undefined());
  if (!value.is_number()) throw template_problem("bad operand type for unary {}: '{}'", e.kind == Kind::kNegative ? "-" : "+", value.type_name());
  if (e.kind == Kind::kPositive) return value.is_real() ? value : TemplateValue::integer(value.as_integer());
  return value.is_real() ? TemplateValue::real(-value.as_real()) : arithmetic("-", TemplateValue::integer(0), value, budget_);
}

TemplateArguments TemplateEvaluator::arguments_of(const TemplateExpression& e) {
  TemplateArguments arguments;
  for (size_t i = 1; i < e.parts.size(); ++i) arguments.positional.push_back(evaluate(*e.parts[i]));
  for (const auto& [name, value] : e.named) arguments.named.emplace_back(name, evaluate(*value));
  return arguments;
}

TemplateValue TemplateEvaluator::call(const TemplateExpression& e) {
  const TemplateValue target = evaluate(*e.parts[0]);
  const TemplateCallable* callable = target.as_callable();
  if (callable == nullptr) {
    const TemplateExpression& named = *e.parts[0];
    if (target.is_undefined() && named.kind == Kind::kAttribute) {
      const TemplateValue owner = evaluate(*named.parts[0]);
      if (has_method_in_python(owner, named.name)) {
        throw TemplateProblem{Code::kUnimplemented, fmt::format("the method {}() of a {} is not supported", named.name, owner.type_name())};
      }
    }
    if (target.is_undefined()) throw template_problem("{}", target.why_undefined());
    throw template_problem("'{}' object is not callable", target.type_name());
  }
  TemplateArguments arguments = arguments_of(e);
  if (callable->receiver) return call_method(*callable->receiver, callable->name, arguments, budget_);
  return callable->macro != nullptr ? call_macro(*callable->macro, std::move(arguments)) : call_function(callable->name, std::move(arguments));
}

TemplateValue TemplateEvaluator::call_function(const std::string& name, TemplateArguments arguments) {
  if (name == "raise_exception") throw Error(Code::kInvalidArgument, arguments.require(0, "message").shown());
  if (name == "strftime_now") {
    budget_.spend_bytes(arguments.text(0, "format").size());
    return TemplateValue::text(date_(arguments.text(0, "format")));
  }
  if (name == "range") {
    const bool one = arguments.positional.size() == 1;
    const int64_t from = one ? 0 : arguments.integer_or(0, "start", 0), to = arguments.integer_or(one ? 0 : 1, "stop", 0);
    const int64_t step = arguments.integer_or(2, "step", 1);
    if (step == 0) throw template_problem("range() arg 3 must not be zero");
    if (std::abs(static_cast<double>(to) - static_cast<double>(from)) / std::abs(static_cast<double>(step)) > kMaxRange) {
      throw template_problem("range() of more than {} numbers", kMaxRange);
    }
    std::vector<TemplateValue> items;
    for (int64_t i = from; step > 0 ? i < to : i > to;) {
      budget_.spend(1);
      items.push_back(TemplateValue::integer(i));
      if (__builtin_add_overflow(i, step, &i)) break;
    }
    return TemplateValue::list(std::move(items));
  }
  TemplateValue::Dict members;
  if (!arguments.positional.empty()) {
    if (arguments.positional.size() > 1 || !arguments.positional[0].is_dict()) throw TemplateProblem{Code::kUnimplemented, name + "() of anything but one dict and names is not supported"};
    budget_.spend_bytes(arguments.positional[0].bytes());
    members = arguments.positional[0].as_dict();
  }
  for (auto& [key, value] : arguments.named) members.emplace_back(TemplateValue::text(key), std::move(value));
  if (name == "dict") return TemplateValue::dict(std::move(members));
  auto names = std::make_shared<TemplateNamespace>();
  for (auto& [key, value] : members) {
    if (value.as_namespace() != nullptr) throw TemplateProblem{Code::kUnimplemented, "a namespace inside a namespace is not supported"};
    if (!key.is_text()) throw template_problem("namespace() takes names, found {}", key.repr());
    names->members[key.as_text()] = std::move(value);
  }
  return TemplateValue::names(std::move(names));
}

}  // namespace penstock::text
