#pragma once
// Carries out a parsed chat template. For the .cpp files of this folder.
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/template_builtins.h"
#include "text/template_tree.h"

namespace penstock::text {

struct TemplateLimits {
  int64_t steps = 5'000'000;           // a step for each part of an expression, and for each 16 bytes that are read or made
  size_t output_bytes = 16 << 20;
};

// One rendering. Threads: one at a time.
// Errors are thrown as Error: kInvalidArgument or kUnimplemented naming the line; what the template itself raises, in its own words.
class TemplateEvaluator {
 public:
  using Variables = std::unordered_map<std::string, TemplateValue>;
  // `date` is the text of strftime_now(format).
  TemplateEvaluator(Variables variables, const TemplateLimits& limits, std::string (*date)(const std::string& format));

  void run(const std::vector<TemplateStatement>& statements);
  [[nodiscard]] std::string take_output() { return std::move(output_); }
  // Where the output was written inside {% generation %}: begin and end in bytes.
  [[nodiscard]] std::vector<std::pair<size_t, size_t>> take_generated() { return std::move(generated_); }

 private:
  enum class Flow { kOn, kBreak, kContinue };

  // Statements.
  Flow execute(const std::vector<TemplateStatement>& body);
  Flow execute(const TemplateStatement& statement);
  Flow run_loop(const TemplateStatement& loop);
  void assign(const TemplateStatement& set);
  void bind(const std::vector<std::string>& names, const TemplateValue& value, int line);
  void write(const std::string& text, int line);
  // `written`: what the body writes. It is dropped where the body leaves the round of a loop around it.
  Flow capture(const std::vector<TemplateStatement>& body, std::string& written);

  // Expressions.
  TemplateValue evaluate(const TemplateExpression& e);
  TemplateValue compute(const TemplateExpression& e);
  TemplateValue look_up(const std::string& name) const;
  TemplateValue make_list(const TemplateExpression& e);
  TemplateValue make_dict(const TemplateExpression& e);
  TemplateValue slice(const TemplateExpression& e);
  TemplateValue compare_all(const TemplateExpression& e);
  TemplateValue signed_value(const TemplateExpression& e);
  TemplateValue call(const TemplateExpression& e);
  TemplateValue call_function(const std::string& name, TemplateArguments arguments);
  TemplateValue call_macro(const TemplateStatement& macro, TemplateArguments arguments);
  TemplateArguments arguments_of(const TemplateExpression& e);

  TemplateBudget budget_;
  const size_t output_limit_;
  std::string (*const date_)(const std::string& format);
  std::vector<Variables> scopes_;  // the innermost last
  std::string output_;             // of the innermost capture
  std::vector<std::pair<size_t, size_t>> generated_;
  int captures_ = 0, calls_ = 0;
};

}  // namespace penstock::text
