// The statements of a chat template, carried out; expressions are in template_expression_values.cpp.
#include "text/template_evaluator.h"

#include <algorithm>

#include "text/template_lexer.h"

namespace penstock::text {

using Kind = TemplateStatement::Kind;

TemplateEvaluator::TemplateEvaluator(Variables variables, const TemplateLimits& limits, std::string (*date)(const std::string& format))
    : budget_(limits.steps), output_limit_(limits.output_bytes), date_(date) {
  for (const char* name : {"range", "namespace", "dict", "raise_exception", "strftime_now"}) {
    variables.emplace(name, TemplateValue::callable({name, nullptr, nullptr}));
  }
  scopes_.push_back(std::move(variables));
  scopes_.emplace_back();
}

void TemplateEvaluator::run(const std::vector<TemplateStatement>& statements) { (void)execute(statements); }

TemplateEvaluator::Flow TemplateEvaluator::execute(const std::vector<TemplateStatement>& body) {
  for (const TemplateStatement& statement : body) {
    if (const Flow flow = execute(statement); flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

TemplateEvaluator::Flow TemplateEvaluator::execute(const TemplateStatement& statement) {
  switch (statement.kind) {
    case Kind::kText:
      write(statement.text, statement.line);
      break;
    case Kind::kPrint:
      write(evaluate(*statement.value).shown(), statement.line);
      break;
    case Kind::kIf:
      return execute(evaluate(*statement.value).truth() ? statement.body : statement.otherwise);
    case Kind::kFor:
      return run_loop(statement);
    case Kind::kSet:
      assign(statement);
      break;
    case Kind::kSetBlock: {
      std::string written;
      scopes_.emplace_back();
      const Flow flow = capture(statement.body, written);
      scopes_.pop_back();
      if (flow != Flow::kOn) return flow;
      scopes_.back()[statement.names.front()] = TemplateValue::text(std::move(written));
      break;
    }
    case Kind::kMacro:
      scopes_.back()[statement.names.front()] = TemplateValue::callable({statement.names.front(), nullptr, &statement});
      break;
    case Kind::kScope: {
      const size_t begin = output_.size();
      scopes_.emplace_back();
      const Flow flow = execute(statement.body);
      scopes_.pop_back();
      if (captures_ == 0) generated_.emplace_back(begin, output_.size());
      return flow;
    }
    case Kind::kFilter: {
      std::string written;
      scopes_.emplace_back();
      const Flow flow = capture(statement.body, written);
      if (flow == Flow::kOn) {
        scopes_.back()[kFilteredBody] = TemplateValue::text(std::move(written));
        write(evaluate(*statement.value).shown(), statement.line);
      }
      scopes_.pop_back();
      return flow;
    }
    case Kind::kWith: {
      Variables variables;
      for (const auto& [name, value] : statement.parameters) variables[name] = evaluate(*value);
      scopes_.push_back(std::move(variables));
      const Flow flow = execute(statement.body);
      scopes_.pop_back();
      return flow;
    }
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kOn;
}

// Each round has a scope of its own: what it sets is gone in the next one.
TemplateEvaluator::Flow TemplateEvaluator::run_loop(const TemplateStatement& loop) {
  auto items = std::make_shared<TemplateList>();
  try {
    items->items = items_of(evaluate(*loop.value), budget_);
    if (loop.condition) {
      std::vector<TemplateValue> kept;
      for (TemplateValue& item : items->items) {
        scopes_.emplace_back();
        bind(loop.names, item, loop.line);
        if (evaluate(*loop.condition).truth()) kept.push_back(std::move(item));
        scopes_.pop_back();
      }
      items->items = std::move(kept);
    }
  } catch (const TemplateProblem& problem) {
    throw template_error(problem.code, loop.line, "{}", problem.what);
  }
  bool finished_one = false;  // Jinja takes "else" also when every round ended by `continue` or `break`
  for (size_t i = 0; i < items->items.size(); ++i) {
    scopes_.emplace_back();
    bind(loop.names, items->items[i], loop.line);
    scopes_.back()["loop"] = TemplateValue::loop(std::make_shared<const TemplateLoop>(TemplateLoop{i, items}));
    const Flow flow = execute(loop.body);
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
    finished_one |= flow == Flow::kOn;
  }
  if (finished_one) return Flow::kOn;
  scopes_.emplace_back();
  const Flow flow = execute(loop.otherwise);
  scopes_.pop_back();
  return flow;
}

void TemplateEvaluator::bind(const std::vector<std::string>& names, const TemplateValue& value, int line) {
  if (names.size() == 1) {
    scopes_.back()[names.front()] = value;
    return;
  }
  if (!value.is_list() || value.as_list().size() != names.size()) {
    throw template_error(Code::kInvalidArgument, line, "expected {} values, found {}", names.size(),
                         value.is_list() ? std::to_string(value.as_list().size()) : std::string(value.type_name()));
  }
  for (size_t i = 0; i < names.size(); ++i) scopes_.back()[names[i]] = value.as_list()[i];
}

void TemplateEvaluator::assign(const TemplateStatement& set) {
  TemplateValue value = evaluate(*set.value);
  if (set.member.empty()) return bind(set.names, value, set.line);
  TemplateNamespace* names = look_up(set.names.front()).as_namespace();
  if (names == nullptr) throw template_error(Code::kInvalidArgument, set.line, "cannot assign attribute on non-namespace object '{}'", set.names.front());
  if (value.as_namespace() != nullptr) throw template_error(Code::kUnimplemented, set.line, "a namespace inside a namespace is not supported");
  names->members[set.member] = std::move(value);
}

void TemplateEvaluator::write(const std::string& text, int line) {
  try {
    budget_.spend_bytes(text.size());
  } catch (const TemplateProblem& problem) {
    throw template_error(problem.code, line, "{}", problem.what);
  }
  if (text.size() > output_limit_ - output_.size()) throw template_error(Code::kInvalidArgument, line, "the output is larger than {} bytes", output_limit_);
  output_ += text;
}

TemplateEvaluator::Flow TemplateEvaluator::capture(const std::vector<TemplateStatement>& body, std::string& written) {
  std::string outer = std::exchange(output_, "");
  ++captures_;
  const Flow flow = execute(body);
  --captures_;
  written = std::exchange(output_, std::move(outer));
  return flow;
}

TemplateValue TemplateEvaluator::call_macro(const TemplateStatement& macro, TemplateArguments arguments) {
  constexpr int kMaxCalls = 16;
  if (calls_ >= kMaxCalls) throw template_problem("macros call each other more than {} deep", kMaxCalls);
  if (!macro.member.empty()) throw TemplateProblem{Code::kUnimplemented, fmt::format("'{}' of macro '{}' is not supported", macro.member, macro.names.front())};
  const auto& parameters = macro.parameters;
  if (arguments.positional.size() > parameters.size()) {
    throw template_problem("macro '{}' takes not more than {} argument(s)", macro.names.front(), parameters.size());
  }
  for (const auto& given : arguments.named) {
    if (std::none_of(parameters.begin(), parameters.end(), [&](const auto& parameter) { return parameter.first == given.first; })) {
      throw template_problem("macro '{}' takes no keyword argument '{}'", macro.names.front(), given.first);
    }
  }
  // A macro sees what the template sets outside of blocks, and its arguments.
  std::vector<Variables> hidden;
  while (scopes_.size() > 2) {
    hidden.push_back(std::move(scopes_.back()));
    scopes_.pop_back();
  }
  scopes_.emplace_back();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const auto& [name, otherwise] = parameters[i];
    const TemplateValue* given = arguments.find(i, name.c_str());
    TemplateValue value = given != nullptr ? *given : otherwise ? evaluate(*otherwise) : TemplateValue::undefined(fmt::format("parameter '{}' was not provided", name));
    scopes_.back()[name] = std::move(value);
  }
  ++calls_;
  std::string written;
  (void)capture(macro.body, written);  // {% break %} in it belongs to loops in it
  --calls_;
  scopes_.pop_back();
  for (; !hidden.empty(); hidden.pop_back()) scopes_.push_back(std::move(hidden.back()));
  return TemplateValue::text(std::move(written));
}

}  // namespace penstock::text
