#include "base/file.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/atomic_file.h"
#include "base/clock.h"

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

// A name that nothing can have counts as one that nothing has.
bool is_absent(int problem) { return problem == ENOENT || problem == ENOTDIR || problem == ENAMETOOLONG; }

void write_all(int fd, std::string_view bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw failed(Code::kDataLoss, "write", path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

// Until there is something to read, or the end of it.
bool wait_readable(int fd, milliseconds limit) {
  const Deadline deadline = Deadline::after(limit);
  struct pollfd watched {fd, POLLIN, 0};
  int ready = 0;
  do {
    ready = ::poll(&watched, 1, static_cast<int>(std::chrono::ceil<milliseconds>(deadline.remaining()).count()));
  } while (ready < 0 && errno == EINTR);
  return ready != 0;
}

}  // namespace

Result<std::string> read_file(const std::filesystem::path& path, size_t limit_bytes) {
  constexpr seconds kSilence{10};  // of whoever writes into a pipe
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // not blocking: to open a pipe waits for a writer, who may never come
  if (fd.get() < 0) return failed(is_absent(errno) ? Code::kNotFound : Code::kDataLoss, "open", path);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return failed(Code::kDataLoss, "stat", path);
  if (S_ISDIR(info.st_mode)) return error(Code::kInvalidArgument, "{} is a folder; expected a file", path.string());

  std::string bytes;
  char buffer[1 << 16];
  while (true) {  // read to the end rather than trust st_size, which pipes and /proc do not fill in
    if (!S_ISREG(info.st_mode) && !wait_readable(fd.get(), kSilence)) {
      return error(Code::kDeadlineExceeded, "cannot read {}: it is a pipe or a device, and nothing has come for {} s; expected a file", path.string(), kSilence.count());
    }
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) return failed(Code::kDataLoss, "read", path);
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<size_t>(got));
    if (bytes.size() > limit_bytes) {
      return error(Code::kInvalidArgument, "{} is larger than the limit of {} bytes", path.string(), limit_bytes);
    }
  }
}

void write_file_atomic(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
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
  FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return failed(is_absent(errno) ? Code::kNotFound : Code::kDataLoss, "open", path);
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
