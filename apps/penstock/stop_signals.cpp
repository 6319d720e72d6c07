#include "stop_signals.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>

#include "base/error.h"

namespace penstock {
namespace {

// A signal handler can reach nothing but globals.
std::atomic<int> num_signals{0};
std::atomic<bool> sigterm_came{false};
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler must not lock");

void count_signal(int number) {
  num_signals.fetch_add(1);
  if (number == SIGTERM) sigterm_came.store(true);
}

void install(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  for (int number : {SIGINT, SIGTERM}) {
    PENSTOCK_CHECK(::sigaction(number, &action, nullptr) == 0, "cannot handle signal {}", number);
  }
}

}  // namespace

StopSignals::StopSignals() {
  num_signals = 0;
  sigterm_came = false;
  install(&count_signal);
}

StopSignals::~StopSignals() { install(SIG_DFL); }

int StopSignals::count() const { return num_signals.load(); }
bool StopSignals::terminated() const { return sigterm_came.load(); }

// Looks every 50 ms rather than being woken: any thread may be the one that the system interrupts.
bool StopSignals::wait(int count, Deadline deadline) const {
  while (num_signals.load() < count) {
    if (deadline.passed()) return false;
    const auto nap = std::min<milliseconds>(deadline.remaining(), milliseconds(50));
    (void)::poll(nullptr, 0, static_cast<int>(std::max<milliseconds::rep>(1, nap.count())));
  }
  return true;
}

}  // namespace penstock
