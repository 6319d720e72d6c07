#include "frontend/snapshots.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <ctime>
#include <nlohmann/json.hpp>
#include <system_error>
#include <vector>

#include "base/atomic_file.h"
#include "base/log.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr size_t kKept = 100;
constexpr size_t kStampDigits = 17;
constexpr std::array<std::string_view, 3> kKinds = {"startup", "snapshot", "shutdown"};

bool is_snapshot_name(std::string_view name) {
  if (name.size() < kStampDigits || !std::all_of(name.begin(), name.begin() + kStampDigits, [](unsigned char c) { return std::isdigit(c) != 0; })) {
    return false;
  }
  name.remove_prefix(kStampDigits);
  return std::any_of(kKinds.begin(), kKinds.end(), [&](std::string_view kind) { return name == fmt::format("-{}.cfg", kind); });
}

// Oldest first.
std::vector<fs::path> list_snapshots(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code failed;
  for (auto entry = fs::directory_iterator(folder, failed); !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    if (is_snapshot_name(entry->path().filename().string())) found.push_back(entry->path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// yyyyMMddHHmmssSSS, in local time
std::string stamp(int64_t ms) {
  const std::time_t whole = ms / 1000;
  std::tm parts{};
  ::localtime_r(&whole, &parts);
  char text[32];
  (void)std::strftime(text, sizeof text, "%Y%m%d%H%M%S", &parts);
  return fmt::format("{}{:03}", text, ms % 1000);
}

// How a model of this store is found again: within it, or by its whole path.
std::string source_of(const ModelSpec& spec, const std::string& store) {
  std::error_code ignored;
  const fs::path source = fs::absolute(spec.source, ignored).lexically_normal();
  if (store.empty()) return source.string();
  const fs::path relative = source.lexically_relative(fs::absolute(store, ignored).lexically_normal());
  return relative.empty() || *relative.begin() == ".." ? source.string() : relative.string();
}

Json describe(const ServedModel& model, bool is_default, const std::string& store) {
  const ModelSpec& spec = model.spec();
  const WorkerRange range = model.range();
  Json json;
  json["defaultVersion"] = is_default;
  json["marName"] = source_of(spec, store);
  json["minWorkers"] = range.min;
  json["maxWorkers"] = std::max(range.min, range.max);
  json["batchSize"] = spec.config.batch_size.value_or(1);
  json["maxBatchDelay"] = spec.config.max_batch_delay_ms.value_or(100);
  json["responseTimeout"] = model.response_timeout().count();
  if (model.startup_timeout() > seconds(0)) json["startupTimeout"] = model.startup_timeout().count();
  json["runtimeType"] = "python";  // for TorchServe, which needs one
  if (spec.config.devices_per_host() > 1) json["parallelLevel"] = spec.config.devices_per_host();
  json["handler"] = spec.handler;
  return json;
}

std::string models_json(const ModelRegistry& registry, const std::string& name, int64_t created_ms, const std::string& store) {
  const auto all = registry.models(), defaults = registry.defaults();
  Json models = Json::object();
  for (const auto& model : all) {
    const bool is_default = std::find(defaults.begin(), defaults.end(), model) != defaults.end();
    models[model->name()][model->version()] = describe(*model, is_default, store);
  }
  return Json{{"name", name}, {"modelCount", all.size()}, {"created", created_ms}, {"models", models}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void forget_old(const fs::path& folder) {
  const auto all = list_snapshots(folder);
  std::error_code ignored;
  for (size_t i = 0; i + kKept < all.size(); ++i) fs::remove(all[i], ignored);
}

}  // namespace

void Snapshots::save(SnapshotKind kind) {
  MutexLock one_at_a_time(saving_);
  const auto now = std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  last_ms_ = std::max<int64_t>(now, last_ms_ + 1);
  const std::string name = fmt::format("{}-{}.cfg", stamp(last_ms_), kKinds[static_cast<size_t>(kind)]);
  try {
    auto settings = config_.settings;
    settings["model_snapshot"] = models_json(registry_, name, last_ms_, config_.model_store);
    fs::create_directories(folder_);
    AtomicFile file(folder_ / name);
    file.write("# written by Penstock\n" + properties_text(settings));
    file.commit();
    forget_old(folder_);
  } catch (const std::exception& failure) {
    spdlog::warn("no snapshot was saved, and serving goes on: {}", failure.what());
  }
}

fs::path last_snapshot(const fs::path& folder) {
  const auto all = list_snapshots(folder);
  return all.empty() ? fs::path() : all.back();
}

Result<RestoredModel> restore_model(const config::SavedModel& saved, const std::optional<ModelStore>& store, ModelArchives& archives,
                                    std::span<const config::ModelEntry> entries) {
  const config::ModelEntry& entry = saved.entry;
  const auto wrong = [&](const Error& why) {
    return error(why.code(), "model '{}' {} of the snapshot: {}; put it back, or start without the snapshot", entry.name, entry.version, why.message());
  };
  auto found = resolve_model(store, entry.name + "=" + saved.source);
  if (!found) return wrong(found.error());
  const auto opened = archives.open(*found);
  if (!opened) return wrong(opened.error());
  auto spec = read_model_spec(opened.value(), entries, saved.handler);
  if (!spec) return wrong(spec.error());
  if (spec->version != entry.version) return wrong(error(Code::kNotFound, "{} is version {} now", saved.source, spec->version));
  spec->config.override_with(entry.settings);
  spec->is_default = entry.is_default;
  spec->loaded_at_startup = true;
  const int workers = entry.settings.min_workers.value_or(1);
  return RestoredModel{std::move(*spec), {workers, std::max(workers, entry.settings.max_workers.value_or(workers))}};
}

std::string properties_text(const std::map<std::string, std::string>& settings) {
  std::string text;
  for (const auto& [key, value] : settings) {
    if (key.find("pass") != std::string::npos) continue;  // a file in the log folder is no place for one
    text += key + '=';
    for (size_t i = 0; i < value.size(); ++i) {
      const char c = value[i];
      if (c == '\\' || (c == ' ' && i == 0)) text += '\\';
      if (c == '\n') text += "\\n";
      else if (c == '\r') text += "\\r";
      else if (c == '\t') text += "\\t";
      else if (c == '\f') text += "\\f";
      else text += c;
    }
    text += '\n';
  }
  return text;
}

}  // namespace penstock::frontend
