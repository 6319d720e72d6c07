#pragma once
// SIGINT and SIGTERM as something to wait for.
#include "base/clock.h"

namespace penstock {

// Catches SIGINT and SIGTERM from its construction to its destruction, and counts them. At most one at a time.
// Child processes are not affected: a caught signal is back at its default in a program that is started.
//
// Threads: every method from any thread.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Waits until `count` signals have come. false: fewer by the deadline.
  [[nodiscard]] bool wait(int count, Deadline deadline) const;
  [[nodiscard]] int count() const;
  // SIGTERM is among them.
  [[nodiscard]] bool terminated() const;
};

}  // namespace penstock
