#pragma once
// A mutex, a lock and a condition variable that clang's -Wthread-safety can check (gcc ignores the annotations).
#include <condition_variable>
#include <mutex>

#include "base/clock.h"

#if defined(__clang__)
#define PENSTOCK_ATTRIBUTE(x) __attribute__((x))
#else
#define PENSTOCK_ATTRIBUTE(x)
#endif
#define GUARDED_BY(mutex) PENSTOCK_ATTRIBUTE(guarded_by(mutex))
#define REQUIRES(...) PENSTOCK_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) PENSTOCK_ATTRIBUTE(locks_excluded(__VA_ARGS__))

namespace penstock {

class PENSTOCK_ATTRIBUTE(capability("mutex")) Mutex {
 public:
  void lock() PENSTOCK_ATTRIBUTE(acquire_capability()) { mutex_.lock(); }
  void unlock() PENSTOCK_ATTRIBUTE(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class PENSTOCK_ATTRIBUTE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) PENSTOCK_ATTRIBUTE(acquire_capability(mutex)) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() PENSTOCK_ATTRIBUTE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Callers loop: `while (!condition) if (!changed.wait(mutex, deadline)) break;`
class CondVar {
 public:
  // Blocks until notified, spuriously woken, or the deadline has passed; false only in the last case.
  bool wait(Mutex& mutex, Deadline deadline) REQUIRES(mutex) {
    if (deadline.is_never()) {
      condition_.wait(mutex);
      return true;
    }
    return condition_.wait_until(mutex, deadline.when()) == std::cv_status::no_timeout;
  }
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

 private:
  std::condition_variable_any condition_;
};

}  // namespace penstock
