#include "cluster/wake_event.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace penstock::cluster {

WakeEvent::WakeEvent() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw error(Code::kUnavailable, "cannot make an event to wake a thread: {}; raise the limit of open files (ulimit -n)", std::strerror(errno));
}

WakeEvent::~WakeEvent() { ::close(fd_); }

void WakeEvent::set() {
  static_cast<void>(::eventfd_write(fd_, 1));  // fails only when it is set 2^64 times
}

void WakeEvent::clear() {
  eventfd_t count = 0;
  static_cast<void>(::eventfd_read(fd_, &count));  // fails when it is not set
}

}  // namespace penstock::cluster
