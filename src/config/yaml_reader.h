#pragma once
// YAML files as a flat list of keys with their lines; what a value means is decided by fields.h.
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "config/fields.h"

namespace penstock::config {

inline constexpr size_t kConfigFileLimit = 1 << 20;  // bytes
inline constexpr int kYamlDepthLimit = 16;           // maps and lists within each other

// Every key of the document in file order, a map before the keys inside it: "a" (a map), "a.b", "a.c".
// The document is one map (or empty). Anchors, aliases, tags, merge keys and second documents are refused, and so is a key given twice.
// Errors: kInvalidArgument "FILE:LINE: ...". No exception leaves.
[[nodiscard]] Result<std::vector<RawValue>> parse_yaml(std::string_view text, const std::string& file);

// The same for a file; kNotFound, or kInvalidArgument when it is larger than kConfigFileLimit.
[[nodiscard]] Result<std::vector<RawValue>> read_yaml(const std::filesystem::path& path);

}  // namespace penstock::config
