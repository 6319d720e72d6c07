#pragma once
// Filters, tests, methods and functions of chat templates. For the .cpp files of this folder.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "text/template_value.h"

namespace penstock::text {

// What went wrong; the evaluator knows the line.
struct TemplateProblem {
  Code code;
  std::string what;
};
template <typename... Args>
[[nodiscard]] TemplateProblem template_problem(fmt::format_string<Args...> format, Args&&... args) {
  return {Code::kInvalidArgument, fmt::format(format, std::forward<Args>(args)...)};
}

// How much a template may still do. Throws TemplateProblem when it is used up.
class TemplateBudget {
 public:
  explicit TemplateBudget(int64_t steps) : all_(steps), left_(steps) {}
  void spend(int64_t steps) {
    if ((left_ -= steps) < 0) throw template_problem("the template takes more than {} steps", all_);
  }
  // For a text that is made or read, and a value that is written as one: a step for each 16 bytes.
  void spend_bytes(size_t bytes) { spend(1 + static_cast<int64_t>(bytes / 16)); }
  // Before a part is looked for in a text, which takes their product at worst.
  void spend_search(size_t text_bytes, size_t part_bytes) {
    if (part_bytes <= text_bytes) spend(static_cast<int64_t>((1 + text_bytes / 16) * (1 + part_bytes / 64)));
  }

 private:
  int64_t all_, left_;
};

struct TemplateArguments {
  std::vector<TemplateValue> positional;
  std::vector<std::pair<std::string, TemplateValue>> named;

  // The argument at `index` or called `name`; null when it is not given.
  [[nodiscard]] const TemplateValue* find(size_t index, const char* name) const;
  // Throw TemplateProblem when it is missing or of another type.
  [[nodiscard]] const TemplateValue& require(size_t index, const char* name) const;
  [[nodiscard]] const std::string& text(size_t index, const char* name) const;
  [[nodiscard]] int64_t integer_or(size_t index, const char* name, int64_t otherwise) const;
  [[nodiscard]] bool flag_or(size_t index, const char* name, bool otherwise) const;
};

// All throw TemplateProblem: kUnimplemented for a name that we do not know, kInvalidArgument for a value that does not fit.
[[nodiscard]] TemplateValue apply_filter(const std::string& name, const TemplateValue& value, const TemplateArguments& arguments, TemplateBudget& budget);
[[nodiscard]] bool apply_test(const std::string& name, const TemplateValue& value, const TemplateArguments& arguments, TemplateBudget& budget);
[[nodiscard]] bool has_method(const TemplateValue& value, const std::string& name);
// Whether Python's type has it, which we may not.
[[nodiscard]] bool has_method_in_python(const TemplateValue& value, const std::string& name);
[[nodiscard]] TemplateValue call_method(const TemplateValue& value, const std::string& name, const TemplateArguments& arguments, TemplateBudget& budget);

// What `for`, `in`, `list` and the like see in a value: items, keys or characters; nothing in an undefined one.
[[nodiscard]] std::vector<TemplateValue> items_of(const TemplateValue& value, TemplateBudget& budget);
// value.name and value[key]; undefined when there is none. Throw TemplateProblem for an undefined value.
[[nodiscard]] TemplateValue attribute_of(const TemplateValue& value, const std::string& name);
[[nodiscard]] TemplateValue item_of(const TemplateValue& value, const TemplateValue& key, TemplateBudget& budget);
// As attribute_of, along names with dots between them, where numbers are places in a list.
[[nodiscard]] TemplateValue path_of(const TemplateValue& value, const std::string& path, TemplateBudget& budget);
// ==
[[nodiscard]] bool equal(const TemplateValue& a, const TemplateValue& b, TemplateBudget& budget);
// Negative, zero or positive. Throws TemplateProblem for values that have no order.
[[nodiscard]] int compare(const TemplateValue& a, const TemplateValue& b, TemplateBudget& budget);
[[nodiscard]] bool contains(const TemplateValue& container, const TemplateValue& value, TemplateBudget& budget);
// `operation`: + - * / // % **
[[nodiscard]] TemplateValue arithmetic(const std::string& operation, const TemplateValue& a, const TemplateValue& b, TemplateBudget& budget);

struct TemplateJsonForm {
  int indent = -1;  // < 0: on one line
  bool sort_keys = false, ascii = false;
  std::string between_items = ", ", behind_key = ": ";
};

// As Python's json.dumps(value, ensure_ascii=False). Throws Error kInvalidArgument for what is no JSON.
[[nodiscard]] std::string to_json(const TemplateValue& value, const TemplateJsonForm& form, TemplateBudget& budget);

}  // namespace penstock::text
