#include "frontend/model_archives.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/file.h"

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

// Where the model lies in an unpacked archive: at its top, or in the one folder there. Empty: nowhere.
fs::path model_root(const fs::path& unpacked) {
  if (holds_model(unpacked)) return unpacked;
  fs::path only;
  std::error_code failed;
  for (auto entry = fs::directory_iterator(unpacked, failed); !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    if (!only.empty()) return {};
    only = entry->path();
  }
  return !only.empty() && holds_model(only) ? only : fs::path();
}

bool same_bytes(const fs::path& a, const fs::path& b) {
  const auto left = MappedFile::open(a), right = MappedFile::open(b);
  return left && right && std::ranges::equal(left.value().bytes(), right.value().bytes());
}

}  // namespace

Result<ModelFolder> ModelArchives::open(ModelFolder model) {
  std::error_code ignored;
  if (!fs::is_regular_file(model.folder, ignored) || model.folder.extension() == ".gguf") return model;
  const auto stamp = stamp_of(model.folder);
  if (!stamp) return stamp.error();
  auto unpacked = find_unpacked(model.folder, stamp.value());
  if (!unpacked) {
    auto fresh = unpack(model.folder, stamp.value());
    if (!fresh) return fresh.error();
    unpacked = *fresh;
  }
  const fs::path root = model_root(*unpacked);
  if (root.empty()) {
    return error(Code::kInvalidArgument, "archive {}: there is no model in it; expected MAR-INF/MANIFEST.json, config.json or model-config.yaml at its top",
                 model.folder.string());
  }
  model.folder = root;
  model.unpacked = std::move(unpacked);
  return model;
}

Result<ModelArchives::Stamp> ModelArchives::stamp_of(const fs::path& archive) {
  struct stat info {};
  if (::stat(archive.c_str(), &info) != 0) return error(Code::kNotFound, "{}: {}", archive.string(), std::strerror(errno));
  const auto nanoseconds = [](const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; };
  return Stamp{info.st_dev, info.st_ino, info.st_size, nanoseconds(info.st_mtim), nanoseconds(info.st_ctim)};
}

// The folder of this archive, or of another with the same bytes.
std::shared_ptr<const fs::path> ModelArchives::find_unpacked(const fs::path& archive, const Stamp& stamp) {
  std::vector<std::pair<Known, std::shared_ptr<const fs::path>>> candidates;
  {
    MutexLock lock(mutex_);
    std::erase_if(known_, [](const Known& known) { return known.folder.expired(); });
    for (const Known& known : known_) {
      auto folder = known.folder.lock();
      if (folder && known.stamp == stamp) return folder;
      if (folder && known.stamp.bytes == stamp.bytes) candidates.emplace_back(known, std::move(folder));
    }
  }
  for (const auto& [known, folder] : candidates) {
    const auto now = stamp_of(known.archive);
    if (now && now.value() == known.stamp && same_bytes(known.archive, archive)) return folder;
  }
  return nullptr;
}

Result<std::shared_ptr<const fs::path>> ModelArchives::unpack(const fs::path& archive, const Stamp& stamp) {
  fs::path folder = root_.path();
  {
    MutexLock lock(mutex_);
    folder /= std::to_string(num_made_++);
  }
  if (auto problem = unpack_archive(archive, folder, limits_)) return *problem;
  const auto remove = [](const fs::path* unpacked) {
    std::error_code ignored;  // what is left over goes with the private folder
    fs::remove_all(*unpacked, ignored);
    delete unpacked;
  };
  std::shared_ptr<const fs::path> owner(new fs::path(folder), remove);
  MutexLock lock(mutex_);
  known_.push_back({archive, stamp, owner});
  return owner;
}

}  // namespace penstock::frontend
