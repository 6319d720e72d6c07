#pragma once
// Test data that is not part of the repository. For *_test.cpp files of this folder.
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/file.h"

namespace penstock::text {

// PENSTOCK_SHARED, or the folder `shared` beside the repository.
inline std::filesystem::path shared_folder() {
  const char* folder = std::getenv("PENSTOCK_SHARED");
  return folder != nullptr ? folder : std::filesystem::path(PENSTOCK_SOURCE_DIR) / "../shared";
}

// A JSON file of it; nullopt when it is not there.
inline std::optional<nlohmann::json> shared_json(const std::filesystem::path& name) {
  const Result<std::string> text = read_file(shared_folder() / name, 64 << 20);
  if (!text.ok()) return std::nullopt;
  return nlohmann::json::parse(text.value());
}

}  // namespace penstock::text
