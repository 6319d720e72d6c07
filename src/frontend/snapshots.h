#pragma once
// Snapshots: what is served and with which settings, as a config.properties from which the server can be started again.
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/mutex.h"
#include "config/server_config.h"
#include "frontend/model_archives.h"
#include "frontend/model_registry.h"

namespace penstock::frontend {

enum class SnapshotKind { kStartup, kChange, kShutdown };

// TorchServe's files: FOLDER/yyyyMMddHHmmssSSS-{startup,snapshot,shutdown}.cfg, of which the 100 newest are kept.
//
// Threads: save() from any thread; one writes at a time.
class Snapshots {
 public:
  // `config` and `registry` must outlive this.
  Snapshots(std::filesystem::path folder, const config::ServerConfig& config, const ModelRegistry& registry)
      : folder_(std::move(folder)), config_(config), registry_(registry) {}

  // Writes one, whole or not at all. What cannot be written (a full disk) is a warning: serving goes on. Blocks: writes a file.
  void save(SnapshotKind kind) EXCLUDES(saving_);

 private:
  const std::filesystem::path folder_;
  const config::ServerConfig& config_;
  const ModelRegistry& registry_;
  Mutex saving_;
  int64_t last_ms_ GUARDED_BY(saving_) = 0;  // two of one millisecond have different names
};

// The newest snapshot of a folder; empty when there is none.
[[nodiscard]] std::filesystem::path last_snapshot(const std::filesystem::path& folder);

struct RestoredModel {
  ModelSpec spec;
  WorkerRange range;
};
// The model of a snapshot as it was served then. Blocks: unpacks an archive.
// Errors: those of resolve_model(), ModelArchives::open() and read_model_spec(), which then name the model; kNotFound for another version.
[[nodiscard]] Result<RestoredModel> restore_model(const config::SavedModel& saved, const std::optional<ModelStore>& store, ModelArchives& archives,
                                                  std::span<const config::ModelEntry> entries);

// One "KEY=VALUE" line each, escaped as config.properties is read. Passwords are left out.
[[nodiscard]] std::string properties_text(const std::map<std::string, std::string>& settings);

}  // namespace penstock::frontend
