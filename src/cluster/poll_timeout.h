#pragma once
// A deadline as poll(2) takes it.
#include <algorithm>
#include <climits>

#include "base/clock.h"

namespace penstock::cluster {

// Milliseconds, rounded up so that a loop around poll() does not spin through the last one; -1 = no limit.
[[nodiscard]] inline int poll_timeout(Deadline deadline) {
  if (deadline.is_never()) return -1;
  return static_cast<int>(std::min<milliseconds::rep>(deadline.remaining().count() + 1, INT_MAX));
}

}  // namespace penstock::cluster
