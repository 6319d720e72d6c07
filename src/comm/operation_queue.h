#pragma once
// Operations that block, one after another on a thread of their own.
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/communicator.h"

namespace penstock::comm {

// Threads:   any for its methods. Owns one thread, which the first post() starts.
// Blocking:  only the Work that post() returns does.
// Errors:    the Error of an operation is thrown by its Work, and by those of all operations after it, which are not begun.
class OperationQueue {
 public:
  OperationQueue() = default;
  ~OperationQueue() { stop(); }
  OperationQueue(const OperationQueue&) = delete;
  OperationQueue& operator=(const OperationQueue&) = delete;

  // `late` is called by a wait() whose deadline passes, and throws; it also makes the operation end.
  [[nodiscard]] WorkPtr post(std::function<void()> operation, std::function<void()> late) EXCLUDES(mutex_);
  // What has not begun fails (kCancelled). Waits for the operation under way: the owner makes that one end first.
  void stop() EXCLUDES(mutex_);
  // True when nothing is queued or under way.
  [[nodiscard]] bool idle() EXCLUDES(mutex_);

 private:
  class Pending;
  class PendingWork;
  struct Entry {
    std::function<void()> operation;
    std::shared_ptr<Pending> pending;
  };
  void run() EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  std::deque<Entry> entries_ GUARDED_BY(mutex_);  // the first one is under way
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::optional<Error> failed_;  // of the thread
  std::thread thread_;           // written under mutex_
};

}  // namespace penstock::comm
