#pragma once
// Archives of the model store, unpacked for as long as a model needs them.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "base/temp_dir.h"
#include "frontend/archive.h"
#include "frontend/model_store.h"

namespace penstock::frontend {

// Threads:  open() from any thread.
// Owns:     a private folder (0700) in the system's temporary folder (TMPDIR), with one folder for each archive that is in use.
// Lifetime: outlives everyone who uses what open() answers.
class ModelArchives {
 public:
  explicit ModelArchives(ArchiveLimits limits = {}) : limits_(limits) {}

  // A folder is answered as it is; of an archive, the folder that it was unpacked into. The same bytes are unpacked once, whatever their names,
  // and removed when the last holder of `unpacked` goes. Blocks: reads and writes files.
  // Errors: those of unpack_archive(); kInvalidArgument when no model is in the archive.
  [[nodiscard]] Result<ModelFolder> open(ModelFolder model) EXCLUDES(mutex_);

 private:
  // What tells that a file is still the one that was unpacked.
  struct Stamp {
    uint64_t device = 0, inode = 0;
    int64_t bytes = 0, modified_ns = 0, changed_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  struct Known {
    std::filesystem::path archive;
    Stamp stamp;
    std::weak_ptr<const std::filesystem::path> folder;
  };
  [[nodiscard]] static Result<Stamp> stamp_of(const std::filesystem::path& archive);
  [[nodiscard]] std::shared_ptr<const std::filesystem::path> find_unpacked(const std::filesystem::path& archive, const Stamp& stamp) EXCLUDES(mutex_);
  [[nodiscard]] Result<std::shared_ptr<const std::filesystem::path>> unpack(const std::filesystem::path& archive, const Stamp& stamp) EXCLUDES(mutex_);

  const ArchiveLimits limits_;
  const TempDir root_;
  Mutex mutex_;
  int num_made_ GUARDED_BY(mutex_) = 0;  // names folders
  std::vector<Known> known_ GUARDED_BY(mutex_);
};

}  // namespace penstock::frontend
