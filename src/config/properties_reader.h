#pragma once
// Java's .properties files, as TorchServe's config.properties is written.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/fields.h"

namespace penstock::config {

// Every key in file order. Comments start with '#' or '!'; a key ends at '=', ':' or white space; a '\' at the end of a line
// continues it; \t \n \r \f \uXXXX and \ before any other character are escapes. A key given twice is an error.
// Errors: kInvalidArgument "FILE:LINE: ...".
[[nodiscard]] Result<std::vector<RawValue>> parse_properties(std::string_view text, const std::string& file);

}  // namespace penstock::config
