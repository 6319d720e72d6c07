#pragma once
// What a streaming call still has to send: at most one message in flight, a bounded rest, and the status that ends it.
#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/mutex.h"

namespace penstock::rpc {

// What the caller must do now. Each answer is given to exactly one caller, who does it without any lock held.
enum class Next {
  kNothing,
  kWrite,   // send current(), then call written()
  kFinish,  // end the call with outcome(); given once, nothing follows
};

// The state of one server stream. It holds no gRPC types, so that the rules can be tested by themselves:
// one write in flight, messages in order, the status after the last message, a reader that lags too far is cut off.
//
// Threads: every method from any thread.
template <typename Message>
class OutboundQueue {
 public:
  // `limit`: messages that may wait for the reader; one more cuts the stream off.
  explicit OutboundQueue(size_t limit) : limit_(limit) {}

  // Ignored once the stream is closed.
  [[nodiscard]] Next push(Message message) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (closed_) return Next::kNothing;
    if (waiting_.size() >= limit_) {
      return close_locked(error(Code::kResourceExhausted,
                                "the client reads too slowly: {} messages are waiting for it; read faster or ask for fewer tokens",
                                waiting_.size()), /*drop_waiting=*/true);
    }
    waiting_.push_back(std::move(message));
    return advance();
  }

  // Ends the stream after what is waiting; nullopt means OK. Only the first end counts.
  [[nodiscard]] Next close(std::optional<Error> outcome) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return closed_ ? Next::kNothing : close_locked(std::move(outcome), /*drop_waiting=*/false);
  }

  // Ends the stream at once: what is waiting is dropped.
  [[nodiscard]] Next abort(Error outcome) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!closed_) return close_locked(std::move(outcome), /*drop_waiting=*/true);
    waiting_.clear();
    return advance();
  }

  // The write in flight has ended; !ok: the peer is gone.
  [[nodiscard]] Next written(bool ok) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    writing_ = false;
    if (!ok) {
      waiting_.clear();
      if (!closed_) return close_locked(Error(Code::kCancelled, "the client is gone"), /*drop_waiting=*/true);
    }
    return advance();
  }

  [[nodiscard]] bool closed() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return closed_;
  }

  // REQUIRES: the caller was told kWrite and has not called written() yet. The address is stable until then.
  [[nodiscard]] const Message& current() const { return current_; }
  // REQUIRES: the caller was told kFinish.
  [[nodiscard]] const std::optional<Error>& outcome() const { return outcome_; }

 private:
  Next close_locked(std::optional<Error> outcome, bool drop_waiting) REQUIRES(mutex_) {
    closed_ = true;
    outcome_ = std::move(outcome);
    if (drop_waiting) waiting_.clear();
    return advance();
  }

  Next advance() REQUIRES(mutex_) {
    if (writing_ || finished_) return Next::kNothing;
    if (!waiting_.empty()) {
      current_ = std::move(waiting_.front());
      waiting_.pop_front();
      writing_ = true;
      return Next::kWrite;
    }
    if (!closed_) return Next::kNothing;
    finished_ = true;
    return Next::kFinish;
  }

  const size_t limit_;
  mutable Mutex mutex_;
  std::deque<Message> waiting_ GUARDED_BY(mutex_);
  bool writing_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
  Message current_;                // written by advance() only when no write is in flight
  std::optional<Error> outcome_;   // written once, before kFinish is answered
};

}  // namespace penstock::rpc
