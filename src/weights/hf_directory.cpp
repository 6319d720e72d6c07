#include "weights/hf_directory.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/mutex.h"
#include "formats/weight_index.h"

namespace penstock::weights {
namespace {

constexpr size_t kMaxIndexBytes = 256 << 20;
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

}  // namespace

struct HfDirectory::Impl {
  std::filesystem::path folder;
  bool has_index = false;
  std::unordered_map<std::string, std::string> file_of;  // by tensor
  Mutex mutex;
  std::map<std::string, std::shared_ptr<const SafetensorsFile>> open_files GUARDED_BY(mutex);

  void read_index();
  std::shared_ptr<const SafetensorsFile> file(const std::string& name) EXCLUDES(mutex);
  void check_shard(const std::string& name, const SafetensorsFile& shard) const;
};

void HfDirectory::Impl::read_index() {
  const std::filesystem::path path = folder / kIndexFile;
  file_of = formats::parse_weight_index(read_file(path, kMaxIndexBytes).value(), path.string());
  std::set<std::string> files;
  for (const auto& [tensor, file] : file_of) files.insert(file);
  for (const std::string& name : files) {
    if (std::filesystem::exists(folder / name)) continue;
    throw error(Code::kNotFound, "{} is missing; {} names it (one of {} weight files): copy or download it again", (folder / name).string(),
                kIndexFile, files.size());
  }
}

void HfDirectory::Impl::check_shard(const std::string& name, const SafetensorsFile& shard) const {
  for (const auto& [tensor, file] : file_of) {
    if (file != name || shard.has(tensor)) continue;
    throw error(Code::kDataLoss, "{} holds no tensor '{}', though {} says so: the files are of different models or versions",
                (folder / name).string(), tensor, kIndexFile);
  }
}

std::shared_ptr<const SafetensorsFile> HfDirectory::Impl::file(const std::string& name) {
  MutexLock lock(mutex);
  auto& slot = open_files[name];
  if (!slot) {
    auto opened = std::make_shared<const SafetensorsFile>(SafetensorsFile::open(folder / name));
    if (has_index) check_shard(name, *opened);
    slot = std::move(opened);
  }
  return slot;
}

HfDirectory::HfDirectory(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HfDirectory::HfDirectory(HfDirectory&&) noexcept = default;
HfDirectory& HfDirectory::operator=(HfDirectory&&) noexcept = default;
HfDirectory::~HfDirectory() = default;

HfDirectory HfDirectory::open(const std::filesystem::path& folder) {
  auto impl = std::make_unique<Impl>();
  impl->folder = folder;
  if (std::filesystem::exists(folder / kSingleFile)) {  // before the index, as Hugging Face's own loader
    for (const std::string& tensor : impl->file(kSingleFile)->names()) impl->file_of.emplace(tensor, kSingleFile);
  } else if (std::filesystem::exists(folder / kIndexFile)) {
    impl->has_index = true;
    impl->read_index();
  } else if (!std::filesystem::is_directory(folder)) {
    throw error(Code::kNotFound, "model folder {} does not exist or is not a folder", folder.string());
  } else {
    throw error(Code::kNotFound, "{} holds no weights; expected {} or {}", folder.string(), kSingleFile, kIndexFile);
  }
  return HfDirectory(std::move(impl));
}

const std::filesystem::path& HfDirectory::path() const { return impl_->folder; }

std::vector<std::string> HfDirectory::names() const {
  std::vector<std::string> names;
  names.reserve(impl_->file_of.size());
  for (const auto& [tensor, file] : impl_->file_of) names.push_back(tensor);
  std::sort(names.begin(), names.end());
  return names;
}

bool HfDirectory::has(const std::string& name) const { return impl_->file_of.contains(name); }

Tensor HfDirectory::tensor(const std::string& name) const {
  const auto found = impl_->file_of.find(name);
  if (found == impl_->file_of.end()) throw error(Code::kNotFound, "{} holds no tensor '{}'", impl_->folder.string(), name);
  return impl_->file(found->second)->tensor(name);
}

int HfDirectory::num_open_files() const {
  MutexLock lock(impl_->mutex);
  return static_cast<int>(std::count_if(impl_->open_files.begin(), impl_->open_files.end(), [](const auto& file) { return file.second != nullptr; }));
}

}  // namespace penstock::weights
