#pragma once
// The value of config.properties' key `models`. Internal to config/.
#include <string_view>
#include <vector>

#include "config/server_config.h"

namespace penstock::config {

// {"NAME": {"VERSION": {"defaultVersion", "marName", "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout",
// "startupTimeout"}}}, by name and version. marName is accepted and not needed: load_models says what is loaded.
// Errors: kInvalidArgument naming model, version and key.
[[nodiscard]] Result<std::vector<ModelEntry>> parse_models(std::string_view json);

// The value of the key `model_snapshot`: {"models": {"NAME": {"VERSION": {the keys above}}}}, where marName is needed and "handler" is ours. Keys that
// we do not know are passed over, keys that are missing take their defaults.
// Errors: kInvalidArgument naming model, version and key.
[[nodiscard]] Result<std::vector<SavedModel>> parse_snapshot(std::string_view json);

}  // namespace penstock::config
