#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace penstock {
namespace {

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

Error failed(Code code, const char* verb, const std::filesystem::path& path) {
  return error(code, "cannot {} {}: {}", verb, path.string(), std::strerror(errno));
}

void write_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw failed(Code::kDataLoss, "write", path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path, size_t limit_bytes) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return failed(errno == ENOENT ? Code::kNotFound : Code::kDataLoss, "open", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return failed(Code::kDataLoss, "stat", path);
  if (S_ISDIR(info.st_mode)) return error(Code::kInvalidArgument, "{} is a folder; expected a file", path.string());

  std::string bytes;
  char buffer[1 << 16];
  for (;;) {  // read to the end rather than trust st_size, which pipes and /proc do not fill in
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(Code::kDataLoss, "read", path);
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(got));
    if (bytes.size() > limit_bytes) {
      return error(Code::kInvalidArgument, "{} is larger than the limit of {} bytes", path.string(), limit_bytes);
    }
  }
}

void write_file_atomic(const std::filesystem::path& path, std::string_view bytes) {
  std::filesystem::path temporary = path;
  temporary += fmt::format(".tmp.{}", ::getpid());
  {
    FileDescriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (fd.get() < 0) throw failed(Code::kDataLoss, "create", temporary);
    write_all(fd.get(), bytes, temporary);
    if (::fsync(fd.get()) != 0) throw failed(Code::kDataLoss, "fsync", temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) throw failed(Code::kDataLoss, "rename into", path);
  sync_path(path.has_parent_path() ? path.parent_path() : ".");
}

void write_output(const std::filesystem::path& path, std::string_view bytes) {
  namespace fs = std::filesystem;
  std::error_code failure;
  const fs::path target = fs::is_symlink(path, failure) ? fs::weakly_canonical(path, failure) : path;
  const fs::file_status status = fs::status(target, failure);
  const fs::path folder = target.has_parent_path() ? target.parent_path() : fs::path(".");
  if (fs::is_directory(status)) throw error(Code::kInvalidArgument, "cannot write {}: it is a folder", path.string());
  if (!fs::is_directory(folder, failure)) throw error(Code::kInvalidArgument, "cannot write {}: there is no folder {}", path.string(), folder.string());
  try {
    if (!fs::exists(status) || fs::is_regular_file(status)) return write_file_atomic(target, bytes);
    FileDescriptor fd(::open(target.c_str(), O_WRONLY | O_CLOEXEC));
    if (fd.get() < 0) throw failed(Code::kInvalidArgument, "open", target);
    write_all(fd.get(), bytes, target);
  } catch (const Error& e) {
    throw error(Code::kInvalidArgument, "cannot write {}: {}", path.string(), e.message());
  }
}

void sync_path(const std::filesystem::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) throw failed(Code::kDataLoss, "open", path);
  if (::fsync(fd.get()) != 0) throw failed(Code::kDataLoss, "fsync", path);
}

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return failed(errno == ENOENT ? Code::kNotFound : Code::kDataLoss, "open", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return error(Code::kDataLoss, "cannot map {}: not a regular file", path.string());
  }
  const auto size = static_cast<size_t>(info.st_size);
  if (size == 0) return MappedFile({});
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (address == MAP_FAILED) return failed(Code::kDataLoss, "map", path);
  return MappedFile({static_cast<const std::byte*>(address), size});
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace penstock
