#pragma once
// JSON from outside, parsed within limits. For .cpp files: it brings in nlohmann's header.
#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

#include "base/error.h"

namespace penstock::text {

struct JsonLimits {
  int depth = 16;  // objects and arrays within each other
};

// Refuses what is not JSON or nested too deep, and an object at the top that has a key twice. The Error has `code` and starts with `what`.
[[nodiscard]] Result<nlohmann::json> parse_json(std::string_view text, const std::string& what, Code code, JsonLimits limits = {});

// A value as messages show it, at most 64 bytes or so.
[[nodiscard]] std::string shown(const nlohmann::json& value);

}  // namespace penstock::text
