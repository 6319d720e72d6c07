#include "background.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/error.h"

namespace penstock {
namespace {

// Archives are read and fetched before the server is ready, which may take minutes.
constexpr seconds kReadyTimeout{600};

[[noreturn]] void wait_for(pid_t child, int pipe_end) {
  const Deadline deadline = Deadline::after(kReadyTimeout);
  pollfd waits{pipe_end, POLLIN, 0};
  int found = 0;
  do {
    found = ::poll(&waits, 1, static_cast<int>(deadline.remaining().count()));
  } while (found < 0 && errno == EINTR);
  if (found == 0) {
    fmt::print(stderr, "process {} has not said within {} s that it is ready; it goes on in the background\n", child, kReadyTimeout.count());
    ::_exit(1);
  }
  char byte = 0;
  if (::read(pipe_end, &byte, 1) == 1) ::_exit(0);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

}  // namespace

Background::Background() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw error(Code::kResourceExhausted, "cannot make a pipe: {}", std::strerror(errno));
  const pid_t child = ::fork();
  if (child < 0) throw error(Code::kResourceExhausted, "cannot go into the background: {}", std::strerror(errno));
  if (child > 0) {
    ::close(ends[1]);
    wait_for(child, ends[0]);
  }
  ::close(ends[0]);
  ready_ = ends[1];
  ::setsid();
  const int nothing = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (nothing < 0 || ::dup2(nothing, STDIN_FILENO) < 0) throw error(Code::kUnavailable, "cannot open /dev/null: {}", std::strerror(errno));
  ::close(nothing);
}

Background::~Background() {
  if (ready_ >= 0) ::close(ready_);
}

void Background::tell_ready() {
  if (ready_ < 0) return;
  (void)!::write(ready_, "x", 1);  // a parent that is gone needs no word
  ::close(std::exchange(ready_, -1));
}

}  // namespace penstock
