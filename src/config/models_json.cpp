#include "config/models_json.h"

#include <algorithm>
#include <array>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/nearest_key.h"

namespace penstock::config {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 8> kKeys = {"defaultVersion", "marName",       "minWorkers",      "maxWorkers",
                                                   "batchSize",      "maxBatchDelay", "responseTimeout", "startupTimeout"};

// The integer of one key; nullopt when it is not given.
Result<std::optional<int>> integer_of(const Json& settings, const char* key, int min, int max) {
  const auto found = settings.find(key);
  if (found == settings.end()) return std::optional<int>();
  if (!found->is_number_integer() || *found < min || *found > max) {
    return error(Code::kInvalidArgument, "{}: expected an integer from {} to {}, found {}", key, min, max,
                 found->is_primitive() ? found->dump().substr(0, 64) : found->type_name());
  }
  return std::optional<int>(found->get<int>());
}

std::optional<seconds> as_seconds(std::optional<int> number) { return number ? std::optional(seconds(*number)) : std::nullopt; }

// A setting of another name is somebody's mistake in `models`, which people write.
std::optional<Error> check_keys(const Json& settings) {
  if (!settings.is_object()) return error(Code::kInvalidArgument, "expected an object of settings, found {}", settings.type_name());
  for (const auto& [key, value] : settings.items()) {
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) return Error(Code::kInvalidArgument, unknown_key(key, kKeys));
  }
  return std::nullopt;
}

// REQUIRES: an object.
Result<ModelEntry> read_entry(const Json& settings) {
  ModelEntry entry;
  if (const auto found = settings.find("defaultVersion"); found != settings.end()) {
    if (!found->is_boolean()) return error(Code::kInvalidArgument, "defaultVersion: expected true or false, found {}", found->type_name());
    entry.is_default = *found;
  }
  constexpr int kMost = 1 << 30;
  std::optional<int> response, startup;
  struct Key {
    const char* name;
    std::optional<int>& target;
    int min, max;
  };
  ModelSettings& s = entry.settings;
  for (const Key& key : {Key{"minWorkers", s.min_workers, 0, 1024}, Key{"maxWorkers", s.max_workers, 0, 1024},
                         Key{"batchSize", s.batch_size, 1, kMost}, Key{"maxBatchDelay", s.max_batch_delay_ms, 0, kMost},
                         Key{"responseTimeout", response, 1, kMost}, Key{"startupTimeout", startup, 1, kMost}}) {
    auto number = integer_of(settings, key.name, key.min, key.max);
    if (!number) return number.error();
    key.target = *number;
  }
  s.response_timeout = as_seconds(response);
  s.startup_timeout = as_seconds(startup);
  if (s.max_workers.value_or(0) > 0 && *s.max_workers < s.min_workers.value_or(0)) {
    return error(Code::kInvalidArgument, "maxWorkers: expected at least minWorkers, {}, found {}", *s.min_workers, *s.max_workers);
  }
  return entry;
}

// Calls `take` with each version of each model.
std::optional<Error> for_each(const Json& models, const std::function<std::optional<Error>(const ModelEntry&, const Json&)>& take) {
  const Error wrong_shape = error(Code::kInvalidArgument, "expected {{\"NAME\": {{\"VERSION\": {{...}}}}}}");
  if (!models.is_object()) return wrong_shape;
  for (const auto& [name, versions] : models.items()) {
    if (!versions.is_object()) return wrong_shape;
    for (const auto& [version, settings] : versions.items()) {
      ModelEntry named;
      named.name = name;
      named.version = version;
      if (auto problem = take(named, settings)) return error(Code::kInvalidArgument, "{} {}: {}", name, version, problem->message());
    }
  }
  return std::nullopt;
}

// A text of a snapshot's model; "" when it is absent.
Result<std::string> text_of(const Json& settings, const char* key) {
  const auto found = settings.find(key);
  if (found == settings.end() || found->is_null()) return std::string();
  if (!found->is_string()) return error(Code::kInvalidArgument, "{}: expected text, found {}", key, found->type_name());
  return found->get<std::string>();
}

std::optional<Error> read_saved(const ModelEntry& named, const Json& settings, std::vector<SavedModel>& models) {
  if (!settings.is_object()) return error(Code::kInvalidArgument, "expected an object of settings, found {}", settings.type_name());
  auto entry = read_entry(settings);
  if (!entry) return entry.error();
  auto source = text_of(settings, "marName"), handler = text_of(settings, "handler");
  if (!source) return source.error();
  if (!handler) return handler.error();
  if (source->empty()) return Error(Code::kInvalidArgument, "marName: expected the folder or the archive of the model, found none");
  SavedModel model{*entry, *source, *handler};
  model.entry.name = named.name;
  model.entry.version = named.version;
  models.push_back(std::move(model));
  return std::nullopt;
}

}  // namespace

Result<std::vector<ModelEntry>> parse_models(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return error(Code::kInvalidArgument, "not valid JSON");
  std::vector<ModelEntry> entries;
  const auto problem = for_each(json, [&](const ModelEntry& named, const Json& settings) -> std::optional<Error> {
    if (auto wrong = check_keys(settings)) return wrong;
    auto entry = read_entry(settings);
    if (!entry) return entry.error();
    entry->name = named.name;
    entry->version = named.version;
    entries.push_back(std::move(*entry));
    return std::nullopt;
  });
  if (problem) return *problem;
  return entries;
}

Result<std::vector<SavedModel>> parse_snapshot(std::string_view text) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return error(Code::kInvalidArgument, "not a JSON object");
  std::vector<SavedModel> models;
  const auto found = json.find("models");
  if (found == json.end()) return models;
  const auto problem = for_each(*found, [&](const ModelEntry& named, const Json& settings) { return read_saved(named, settings, models); });
  if (problem) return *problem;
  return models;
}

}  // namespace penstock::config
