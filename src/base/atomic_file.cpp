#include "base/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace penstock {

AtomicFile::AtomicFile(const std::filesystem::path& path) : path_(path), temporary_(path) {
  temporary_ += fmt::format(".tmp.{}", ::getpid());
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail("create");
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) fail("write");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void AtomicFile::commit() {
  if (::fsync(fd_) != 0) fail("fsync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw error(Code::kDataLoss, "cannot rename into {}: {}", path_.string(), std::strerror(errno));
  ::close(fd_);
  fd_ = -1;
  sync_path(path_.has_parent_path() ? path_.parent_path() : ".");
}

void AtomicFile::fail(const char* verb) const { throw error(Code::kDataLoss, "cannot {} {}: {}", verb, temporary_.string(), std::strerror(errno)); }

}  // namespace penstock
