#pragma once
// A chat template cut into words. For the .cpp files of this folder.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace penstock::text {

struct TemplateToken {
  enum Kind {
    kText,        // what stands between tags, white space control done
    kPrintBegin,  // {{
    kPrintEnd,    // }}
    kBlockBegin,  // {%
    kBlockEnd,    // %}
    kName,
    kString,      // `text` is its value
    kInteger,
    kReal,
    kOperator,
    kEnd,         // of the template
  };
  Kind kind = kEnd;
  std::string text;
  int line = 1;
};

// As Jinja 3 with trim_blocks and lstrip_blocks, which is how `transformers` sets it: a line break after a block goes, white space before a
// block that starts a line goes, and `-` beside a tag takes all white space on its side. The last token is kEnd.
// Throws Error kDataLoss (broken) or kUnimplemented, naming the line.
[[nodiscard]] std::vector<TemplateToken> cut_template(std::string_view source);

// "chat template, line 3: ..."
template <typename... Args>
[[nodiscard]] Error template_error(Code code, int line, fmt::format_string<Args...> format, Args&&... args) {
  return error(code, "chat template, line {}: {}", line, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace penstock::text
