#pragma once
// How filters of chat templates are found. For the .cpp files of this folder.
#include <string>

#include "text/template_builtins.h"

namespace penstock::text {

struct TemplateFilter {
  const char* name;
  TemplateValue (*apply)(const TemplateValue& value, const TemplateArguments& arguments, TemplateBudget& budget);
};

// Those that look at items one by one; null when there is none of the name.
[[nodiscard]] const TemplateFilter* list_filter(const std::string& name);

}  // namespace penstock::text
