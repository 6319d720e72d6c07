#pragma once
// JSON from outside, parsed within limits. For .cpp files: it brings in nlohmann's header.
#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace penstock::text {

inline constexpr int kRequestDepth = 64;  // of requests that may have a JSON schema in them

struct JsonLimits {
  int depth = 16;  // objects and arrays within each other
  // It will be parsed once more into nlohmann::ordered_json, which compares each key with all before it in its object: refuses what would take more
  // comparisons, of which one of long keys counts as several. 0: it will not.
  uint64_t key_comparisons = 0;
};

inline constexpr uint64_t kMaxKeyComparisons = 50'000'000;  // one object with 10,000 keys, or ten with 3,000

// Refuses what is not JSON or nested too deep, and an object at the top that has a key twice. The Error has `code` and starts with `what`.
[[nodiscard]] Result<nlohmann::json> parse_json(std::string_view text, const std::string& what, Code code, JsonLimits limits = {});

// As parse_json(), and the members of objects stay in their order.
[[nodiscard]] Result<nlohmann::ordered_json> parse_ordered_json(std::string_view text, const std::string& what, Code code, int depth,
                                                                uint64_t key_comparisons = kMaxKeyComparisons);

// A value as messages show it, at most 64 bytes or so.
[[nodiscard]] std::string shown(const nlohmann::json& value);

}  // namespace penstock::text
