#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ranges>
#include <thread>

#include "base/clock.h"
#include "base/file.h"
#include "base/filesystem_error.h"
#include "formats/checkpoint_folder.h"

namespace penstock::train {
namespace {

namespace fs = std::filesystem;

constexpr const char *kCheckpoints = "checkpoints", *kModel = "model";
constexpr seconds kLockWait{5};
constexpr milliseconds kLookAgain{50};

void require_folder_or_nothing(const fs::path& path) {
  std::error_code failed;
  const fs::file_status status = fs::status(path, failed);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) throw error(Code::kInvalidArgument, "output: {} is no folder, and the run needs one there; move it away or choose another `output`", path.string());
  if (::access(path.c_str(), W_OK) != 0) throw error(Code::kDataLoss, "output: cannot write into {}: {}", path.string(), std::strerror(errno));
}

}  // namespace

RunFolder::RunFolder(const fs::path& folder, bool goes_on, bool anew) : folder_(folder) {
  if (!goes_on && !anew && formats::newest_checkpoint(folder / kCheckpoints)) {
    throw error(Code::kFailedPrecondition, "{} holds checkpoints of an earlier run; continue it with --resume, start anew with --overwrite, or choose another `output`", folder.string());
  }
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) throw error(Code::kInvalidArgument, "output: cannot make the run folder {}: {}", folder.string(), failed.message());
  require_folder_or_nothing(folder);
  for (const char* name : {kCheckpoints, kModel, "tensorboard", "flight"}) require_folder_or_nothing(folder / name);
  lock();
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) ::close(lock_);
}

// A file system without locks has none.
void RunFolder::lock() {
  lock_ = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (const Deadline deadline = Deadline::after(kLockWait); lock_ >= 0 && ::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;) {
    if (deadline.passed()) {
      ::close(lock_);
      throw error(Code::kAlreadyExists, "output: another run is writing {}; wait for its end, stop it, or choose another `output`", folder_.string());
    }
    std::this_thread::sleep_for(kLookAgain);
  }
}

void RunFolder::take_over(bool anew, const std::string& config_yaml) const {
  try {
    if (anew) fs::remove_all(folder_ / kCheckpoints);
    formats::remove_unfinished(folder_ / kCheckpoints);
    fs::remove_all(formats::unfinished_path(folder_ / kModel));
  } catch (const fs::filesystem_error& e) {
    throw error_of(e);
  }
  write_file_atomic(folder_ / "config.yaml", config_yaml);
}

std::string way_around(const fs::path& damaged) {
  const auto all = formats::finished_checkpoints(damaged.parent_path());
  for (const fs::path& older : all | std::views::reverse) {
    if (older >= damaged) continue;
    if (const auto manifest = formats::read_manifest(older)) {
      return fmt::format("move {} away, and --resume continues from step {} (`penstock checkpoint verify {}` says whether that one is whole)", damaged.string(), manifest.value().step,
                         older.string());
    }
  }
  return fmt::format("there is no older checkpoint: start anew with --overwrite, or choose another `output`");
}

}  // namespace penstock::train
