#pragma once
// A bounded queue between threads.
#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"

namespace penstock {

enum class Put { kDone, kFull, kClosed };

// Carries messages from any number of producer threads to any number of consumers, in order.
//
// Threads:  every method may be called from any thread.
// Close:    after close(), put() answers kClosed, also to a producer that already waits;
//           take() hands out what is left, then nullopt. Closing twice is harmless.
// Lifetime: the owner closes, joins every user, then destroys.
template <typename T>
class Channel {
 public:
  explicit Channel(size_t capacity) : capacity_(capacity) {}

  // Waits for room until the deadline. `item` is moved from only when the answer is kDone.
  [[nodiscard]] Put put(T&& item, Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!closed_ && items_.size() >= capacity_) {
      if (!has_room_.wait(mutex_, deadline)) break;
    }
    if (closed_) return Put::kClosed;
    if (items_.size() >= capacity_) return Put::kFull;
    items_.push_back(std::move(item));
    has_item_.notify_one();
    return Put::kDone;
  }

  // Answers at once.
  [[nodiscard]] Put try_put(T&& item) { return put(std::move(item), Deadline::after(milliseconds(0))); }

  // Waits for an item until the deadline; nullopt when there is none by then, or the channel is closed and empty.
  [[nodiscard]] std::optional<T> take(Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!closed_ && items_.empty()) {
      if (!has_item_.wait(mutex_, deadline)) break;
    }
    if (items_.empty()) return std::nullopt;
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    has_room_.notify_one();
    return item;
  }

  [[nodiscard]] std::optional<T> try_take() { return take(Deadline::after(milliseconds(0))); }

  void close() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    closed_ = true;
    has_item_.notify_all();
    has_room_.notify_all();
  }

  [[nodiscard]] bool closed() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return closed_;
  }
  [[nodiscard]] size_t size() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return items_.size();
  }

 private:
  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar has_item_;
  CondVar has_room_;
  std::deque<T> items_ GUARDED_BY(mutex_);
  bool closed_ GUARDED_BY(mutex_) = false;
};

}  // namespace penstock
