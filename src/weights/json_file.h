#pragma once
// JSON files of model directories.
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "base/error.h"

namespace penstock::weights {

// Throws Error kNotFound; `code` for what is no JSON object or larger, naming file and byte.
[[nodiscard]] nlohmann::json parse_json_object(const std::filesystem::path& path, size_t limit_bytes, Code code);

}  // namespace penstock::weights
