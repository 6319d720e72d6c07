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
  // What may wait for the reader, in messages and in bytes; what comes when so much waits cuts the stream off.
  explicit OutboundQueue(size_t limit, size_t byte_limit = 64 << 20) : limit_(limit), byte_limit_(byte_limit) {}

  // Ignored once the stream is closed. `bytes`: about the message's size.
  [[nodiscard]] Next push(Message message, size_t bytes = 0) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (closed_) return Next::kNothing;
    if (waiting_.size() >= limit_ || waiting_bytes_ > byte_limit_) {
      return close_locked(error(Code::kResourceExhausted,
                                "the client reads too slowly: {} messages of {} bytes are waiting for it; read faster or ask for less",
                                waiting_.size(), waiting_bytes_), /*drop_waiting=*/true);
    }
    waiting_.push_back({std::move(message), bytes});
    waiting_bytes_ += bytes;
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
    drop_all();
    return advance();
  }

  // The write in flight has ended; !ok: the peer is gone.
  [[nodiscard]] Next written(bool ok) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    writing_ = false;
    if (!ok) {
      drop_all();
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
    if (drop_waiting) drop_all();
    return advance();
  }

  Next advance() REQUIRES(mutex_) {
    if (writing_ || finished_) return Next::kNothing;
    if (!waiting_.empty()) {
      current_ = std::move(waiting_.front().message);
      waiting_bytes_ -= waiting_.front().bytes;
      waiting_.pop_front();
      writing_ = true;
      return Next::kWrite;
    }
    if (!closed_) return Next::kNothing;
    finished_ = true;
    return Next::kFinish;
  }

  struct Waiting {
    Message message;
    size_t bytes;
  };
  void drop_all() REQUIRES(mutex_) {
    waiting_.clear();
    waiting_bytes_ = 0;
  }

  const size_t limit_, byte_limit_;
  mutable Mutex mutex_;
  std::deque<Waiting> waiting_ GUARDED_BY(mutex_);
  size_t waiting_bytes_ GUARDED_BY(mutex_) = 0;
  bool writing_ GUARDED_BY(mutex_) = false;
  bool closed_ GUARDED_BY(mutex_) = false;
  bool finished_ GUARDED_BY(mutex_) = false;
  Message current_;                // written by advance() only when no write is in flight
  std::optional<Error> outcome_;   // written once, before kFinish is answered
};

}  // namespace penstock::rpc
