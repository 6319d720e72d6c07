#include "cluster/pid_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace penstock::cluster {
namespace {

constexpr std::string_view kToldToStop = "stopping\n";
constexpr milliseconds kNap{20};
// Between its lock and its number a holder does nothing that takes time.
constexpr seconds kNumberTimeout{2};

// An open file, closed by the destructor.
class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Error foreign(const std::filesystem::path& path) {
  return error(Code::kPermissionDenied, "{} is not a file of this user; set TMPDIR to a folder of your own, or remove the file", path.string());
}

// -1: there is none. Temporary folders are shared: a link, or a file that somebody else laid there, says nothing.
Result<int> open_own(const std::filesystem::path& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0644);
  if (fd < 0) {
    if (errno == ENOENT && (flags & O_CREAT) == 0) return -1;
    if (errno == ELOOP || errno == EACCES || errno == EPERM) return foreign(path);
    return error(Code::kDataLoss, "cannot open {}: {}", path.string(), std::strerror(errno));
  }
  struct stat status {};
  if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_uid == ::geteuid()) return fd;
  ::close(fd);
  return foreign(path);
}

// Whether the path still leads to this open file.
bool is_at(const std::filesystem::path& path, int fd) {
  struct stat here {}, there {};
  return ::fstat(fd, &here) == 0 && ::lstat(path.c_str(), &there) == 0 && here.st_ino == there.st_ino && here.st_dev == there.st_dev;
}

std::optional<PidFileHolder> read_holder(int fd) {
  char text[64];
  const ssize_t count = ::pread(fd, text, sizeof text, 0);
  if (count <= 0) return std::nullopt;
  PidFileHolder holder;
  const auto [end, failed] = std::from_chars(text, text + count, holder.pid);
  if (failed != std::errc() || holder.pid <= 1 || end == text + count || *end != '\n') return std::nullopt;
  holder.told_to_stop = std::string_view(end + 1, static_cast<size_t>(text + count - end - 1)) == kToldToStop;
  return holder;
}

}  // namespace

Result<PidFile> PidFile::take(const std::filesystem::path& path) {
  for (;;) {
    auto opened = open_own(path, O_RDWR | O_CREAT);
    if (!opened) return opened.error();
    File file(*opened);
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      const auto holder = read_holder(file.get());
      return error(Code::kAlreadyExists, "{} is held by process {}", path.string(), holder ? holder->pid : 0);
    }
    if (!is_at(path, file.get())) continue;  // its last holder has removed it since we opened it
    const std::string number = fmt::format("{}\n", ::getpid());
    if (::ftruncate(file.get(), 0) != 0 || ::pwrite(file.get(), number.data(), number.size(), 0) != static_cast<ssize_t>(number.size())) {
      return error(Code::kDataLoss, "cannot write {}: {}", path.string(), std::strerror(errno));
    }
    return PidFile(path, file.release());
  }
}

PidFile::PidFile(PidFile&& other) noexcept : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)) {}

PidFile::~PidFile() {
  if (fd_ < 0) return;
  if (is_at(path_, fd_)) ::unlink(path_.c_str());
  ::close(fd_);
}

Result<std::optional<PidFileHolder>> PidFile::holder(const std::filesystem::path& path) {
  const Deadline deadline = Deadline::after(kNumberTimeout);
  for (;;) {
    auto opened = open_own(path, O_RDONLY);
    if (!opened) return opened.error();
    if (*opened < 0) return std::optional<PidFileHolder>();
    const File file(*opened);
    if (::flock(file.get(), LOCK_SH | LOCK_NB) == 0) return std::optional<PidFileHolder>();
    if (auto holder = read_holder(file.get())) return holder;
    if (deadline.passed()) return error(Code::kDataLoss, "{} is locked, but holds no process number", path.string());
    std::this_thread::sleep_for(kNap);
  }
}

std::optional<Error> PidFile::stop(const std::filesystem::path& path, const PidFileHolder& holder) {
  if (::kill(holder.pid, SIGTERM) != 0) return error(Code::kUnavailable, "cannot stop process {}: {}", holder.pid, std::strerror(errno));
  auto opened = open_own(path, O_WRONLY);
  if (!opened || *opened < 0) return std::nullopt;  // it was quick
  const File file(*opened);
  const std::string text = fmt::format("{}\n{}", holder.pid, kToldToStop);
  (void)!::pwrite(file.get(), text.data(), text.size(), 0);  // for those who start the next server; the signal is what counts
  return std::nullopt;
}

bool PidFile::wait_free(const std::filesystem::path& path, Deadline deadline) {
  for (;;) {
    const auto found = holder(path);
    if (found && !found.value()) return true;
    if (deadline.passed()) return false;
    std::this_thread::sleep_for(kNap);
  }
}

}  // namespace penstock::cluster
