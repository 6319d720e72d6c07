#pragma once
// A model-config.yaml that other people's code reads, too.
#include <filesystem>

#include "base/error.h"
#include "config/model_config.h"

namespace penstock::config {

// As load_model_config(), but keys that Penstock does not know are left to the model's own handler, and none of `handler` is looked at.
// An empty path stands for an empty file beside nothing; `folder` is the model's.
[[nodiscard]] Result<ModelConfig> load_foreign_model_config(const std::filesystem::path& folder, const std::filesystem::path& file);

}  // namespace penstock::config
