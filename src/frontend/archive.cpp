#include "frontend/archive.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>

namespace penstock::frontend {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 4> kSuffixes = {".mar", ".tar.gz", ".tgz", ".zip"};
constexpr size_t kReadBytes = 1 << 16;
constexpr size_t kShownBytes = 200;
constexpr size_t kMaxPartBytes = 255;  // of one name within a path: what file systems take

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

// A name as messages show it.
std::string shown(std::string_view name) {
  std::string text(name.substr(0, kShownBytes));
  std::replace_if(text.begin(), text.end(), is_control, '?');
  return text;
}

class Unpacker {
 public:
  Unpacker(const fs::path& archive, const fs::path& folder, const ArchiveLimits& limits) : archive_(archive), folder_(folder), limits_(limits) {}

  std::optional<Error> run() {
    std::error_code failed;
    const auto archive_bytes = fs::file_size(archive_, failed);
    if (failed) return error(Code::kNotFound, "{}: {}", archive_.string(), failed.message());
    const auto most = static_cast<uint64_t>(limits_.bytes), ratio = static_cast<uint64_t>(limits_.ratio);
    const auto of_ratio = static_cast<int64_t>(archive_bytes > most / ratio ? most : archive_bytes * ratio);
    allowed_ = std::min(limits_.bytes, std::max(limits_.any_ratio_bytes, of_ratio));
    if (!fs::create_directory(folder_, failed)) return error(Code::kDataLoss, "cannot make {}: {}", folder_.string(), failed.message());
    if (auto problem = open()) return problem;
    for (;;) {
      archive_entry* entry = nullptr;
      const int got = ::archive_read_next_header(reader_.get(), &entry);
      if (got == ARCHIVE_EOF) break;
      if (got < ARCHIVE_WARN) return broken();
      if (++num_entries_ > limits_.entries) return refuse("more than {} entries", limits_.entries);
      if (auto problem = take(entry)) return problem;
    }
    if (num_entries_ == 0) return refuse("there is nothing in it");
    return std::nullopt;
  }

 private:
  std::optional<Error> open() {
    ::archive_read_support_filter_gzip(reader_.get());
    ::archive_read_support_format_tar(reader_.get());
    // By its directory at the end, as everybody reads a zip: one that was cut off has none.
    ::archive_read_support_format_zip_seekable(reader_.get());
    if (::archive_read_open_filename(reader_.get(), archive_.c_str(), kReadBytes) != ARCHIVE_OK) return broken();
    return std::nullopt;
  }

  std::optional<Error> take(archive_entry* entry) {
    const char* name = ::archive_entry_pathname_utf8(entry);
    if (!name) name = ::archive_entry_pathname(entry);
    if (!name) return refuse("entry {} has a name that cannot be read", num_entries_);
    name_ = name;
    if (::archive_entry_is_encrypted(entry)) return refuse_entry("it is encrypted");
    if (::archive_entry_hardlink(entry)) return refuse_entry("links are not allowed, found a hard link");
    const auto type = ::archive_entry_filetype(entry);
    if (type == AE_IFLNK) return refuse_entry("links are not allowed, found a symbolic link");
    if (type != AE_IFREG && type != AE_IFDIR) return refuse_entry("expected a file or a folder, found a device, a pipe or a socket");
    fs::path relative;
    if (auto problem = check_name(name_, relative)) return problem;
    if (type == AE_IFDIR) return make_folder(relative);
    if (relative.empty()) return refuse_entry("expected the name of a file");
    if (auto problem = make_folder(relative.parent_path())) return problem;
    return write_file(entry, folder_ / relative);
  }

  // The name's parts, taken as they are; "." and empty parts say nothing.
  std::optional<Error> check_name(std::string_view name, fs::path& relative) const {
    if (name.size() > limits_.name_bytes) return refuse_entry("its name is longer than {} bytes", limits_.name_bytes);
    if (name.starts_with('/')) return refuse_entry("absolute names are not allowed");
    if (std::any_of(name.begin(), name.end(), [](char c) { return is_control(c) || c == '\\'; })) {
      return refuse_entry("control characters and backslashes are not allowed in names");
    }
    int depth = 0;
    while (!name.empty()) {
      const std::string_view part = name.substr(0, name.find('/'));
      name.remove_prefix(std::min(name.size(), part.size() + 1));
      if (part.empty() || part == ".") continue;
      if (part == "..") return refuse_entry("'..' is not allowed in names");
      if (part.size() > kMaxPartBytes) return refuse_entry("a part of its name is longer than {} bytes", kMaxPartBytes);
      if (++depth > limits_.depth) return refuse_entry("more than {} folders within each other", limits_.depth);
      relative /= part;
    }
    return std::nullopt;
  }

  std::optional<Error> make_folder(const fs::path& relative) const {
    std::error_code failed;
    fs::create_directories(folder_ / relative, failed);
    if (!failed) return std::nullopt;
    if (failed == std::errc::not_a_directory || failed == std::errc::file_exists) return refuse_entry("another entry is a file of that name");
    return disk_failed(failed.message());
  }

  std::optional<Error> write_file(archive_entry* entry, const fs::path& path) {
    if (::archive_entry_size_is_set(entry) && ::archive_entry_size(entry) > allowed_ - total_) return too_large();
    // No link can lie in the folder, and O_EXCL makes sure that nothing is written twice.
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0) return errno == EEXIST ? refuse_entry("another entry has the same name") : disk_failed(std::strerror(errno));
    auto problem = copy(entry, fd);
    if (::close(fd) != 0 && !problem) problem = disk_failed(std::strerror(errno));
    return problem;
  }

  std::optional<Error> copy(archive_entry* entry, int fd) {
    int64_t end = 0;
    for (;;) {
      const void* block = nullptr;
      size_t size = 0;
      la_int64_t offset = 0;
      const int got = ::archive_read_data_block(reader_.get(), &block, &size, &offset);
      if (got == ARCHIVE_EOF) break;
      if (got != ARCHIVE_OK) return broken();  // a wrong checksum is a warning there, and not here
      const int64_t left = allowed_ - total_;
      if (offset < 0 || offset > left || static_cast<int64_t>(size) > left - offset) return too_large();
      if (auto problem = write_at(fd, static_cast<const char*>(block), size, offset)) return problem;
      end = std::max(end, offset + static_cast<int64_t>(size));
    }
    // A hole at the end of a sparse file.
    if (const int64_t size = ::archive_entry_size(entry); ::archive_entry_size_is_set(entry) && size > end) {
      if (::ftruncate(fd, size) != 0) return disk_failed(std::strerror(errno));
      end = size;
    }
    total_ += end;
    return std::nullopt;
  }

  std::optional<Error> write_at(int fd, const char* bytes, size_t size, int64_t offset) const {
    while (size > 0) {
      const ssize_t written = ::pwrite(fd, bytes, size, offset);
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return disk_failed(std::strerror(errno));
      bytes += written;
      offset += written;
      size -= static_cast<size_t>(written);
    }
    return std::nullopt;
  }

  template <typename... Args>
  [[nodiscard]] Error refuse(fmt::format_string<Args...> format, Args&&... args) const {
    return error(Code::kInvalidArgument, "archive {}: {}", archive_.string(), fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  [[nodiscard]] Error refuse_entry(fmt::format_string<Args...> format, Args&&... args) const {
    return refuse("entry '{}': {}", shown(name_), fmt::format(format, std::forward<Args>(args)...));
  }
  [[nodiscard]] Error too_large() const {
    return refuse_entry("the archive unpacks to more than {} bytes, more than an archive of its size may; unpack it by hand into a folder of the model store",
                        allowed_);
  }
  [[nodiscard]] Error disk_failed(std::string_view why) const {
    return error(Code::kDataLoss, "archive {}: entry '{}': cannot be written to {}: {}", archive_.string(), shown(name_), folder_.string(), why);
  }
  [[nodiscard]] Error broken() const {
    const char* text = ::archive_error_string(reader_.get());
    const std::string why = text ? shown(text) : "no reason given";
    if (num_entries_ == 0) return refuse("expected a whole zip or tar.gz file: {}", why);
    return refuse("damaged or cut off after entry '{}': {}", shown(name_), why);
  }

  struct Free {
    void operator()(::archive* reader) const { ::archive_read_free(reader); }
  };

  const fs::path archive_, folder_;
  const ArchiveLimits limits_;
  const std::unique_ptr<::archive, Free> reader_{::archive_read_new()};
  int64_t allowed_ = 0;  // bytes
  int64_t total_ = 0;    // bytes written
  int64_t num_entries_ = 0;
  std::string name_;     // of the entry at hand
};

}  // namespace

bool is_archive_name(std::string_view name) {
  return std::any_of(kSuffixes.begin(), kSuffixes.end(), [&](std::string_view suffix) { return name.size() > suffix.size() && name.ends_with(suffix); });
}

std::string model_stem(std::string_view name) {
  while (name.ends_with('/')) name.remove_suffix(1);
  if (const size_t slash = name.rfind('/'); slash != std::string_view::npos) name.remove_prefix(slash + 1);
  for (const std::string_view suffix : kSuffixes) {
    if (name.size() > suffix.size() && name.ends_with(suffix)) return std::string(name.substr(0, name.size() - suffix.size()));
  }
  constexpr std::string_view kGguf = ".gguf";
  if (name.size() > kGguf.size() && name.ends_with(kGguf)) name.remove_suffix(kGguf.size());
  return std::string(name);
}

std::optional<Error> unpack_archive(const fs::path& archive, const fs::path& folder, const ArchiveLimits& limits) {
  Unpacker unpacker(archive, folder, limits);
  auto problem = unpacker.run();
  std::error_code ignored;
  if (problem) fs::remove_all(folder, ignored);
  return problem;
}

}  // namespace penstock::frontend
