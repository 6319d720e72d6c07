#pragma once
// Time: one monotonic clock, and deadlines that are passed down instead of timeouts.
#include <algorithm>
#include <chrono>
#include <cstdint>

namespace penstock {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A point in time by which a wait must end. Copy it down the calls; never re-add a timeout on the way.
class Deadline {
 public:
  template <typename Rep, typename Period>
  static Deadline after(std::chrono::duration<Rep, Period> timeout) {
    return Deadline(Clock::now() + std::chrono::duration_cast<Clock::duration>(timeout));
  }
  static Deadline at(Clock::time_point when) { return Deadline(when); }
  // For waits that another event is guaranteed to end, such as a channel that its owner closes.
  static Deadline never() { return Deadline(Clock::time_point::max()); }

  [[nodiscard]] bool passed() const { return Clock::now() >= when_; }
  [[nodiscard]] bool is_never() const { return when_ == Clock::time_point::max(); }
  [[nodiscard]] Clock::time_point when() const { return when_; }
  // At least zero.
  [[nodiscard]] milliseconds remaining() const {
    if (is_never()) return milliseconds::max();
    return std::max(milliseconds(0), std::chrono::duration_cast<milliseconds>(when_ - Clock::now()));
  }

 private:
  explicit Deadline(Clock::time_point when) : when_(when) {}
  Clock::time_point when_;
};

// Seconds as a double, for rates and tables.
[[nodiscard]] inline double to_seconds(Clock::duration d) { return std::chrono::duration<double>(d).count(); }

// Microseconds on a clock that all processes of one machine share; what timelines are stamped with.
[[nodiscard]] inline int64_t now_us() {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now().time_since_epoch()).count();
}

}  // namespace penstock
