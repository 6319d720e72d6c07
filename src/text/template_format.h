#pragma once
// Python's two ways to put values into a text. For the .cpp files of this folder.
#include <string>

#include "text/template_builtins.h"

namespace penstock::text {

// text % values: %s %r %d %i %f %e %g %x %o and %%, with flags, width and precision; `values` is a tuple, or the one value.
// `escaping`: the text is safe, so what %s and %r put in is escaped unless it is safe too.
// Throw TemplateProblem: kUnimplemented for %(name)s and other letters, kInvalidArgument for values that do not fit.
[[nodiscard]] std::string formatted_by_percent(const std::string& text, const TemplateValue& values, bool escaping, TemplateBudget& budget);

// text.format(...): {}, {0} and {name}, with {{ and }}. Throws TemplateProblem: kUnimplemented for attributes, items, conversions and forms in the braces.
[[nodiscard]] std::string formatted_by_braces(const std::string& text, const TemplateArguments& arguments, TemplateBudget& budget);

}  // namespace penstock::text
