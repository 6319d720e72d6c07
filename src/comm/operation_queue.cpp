#include "comm/operation_queue.h"

namespace penstock::comm {

class OperationQueue::Pending {
 public:
  void end(std::optional<Error> failure) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    ended_ = true;
    failure_ = std::move(failure);
    changed_.notify_all();
  }
  // False at the deadline.
  bool wait(Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!ended_) {
      if (!changed_.wait(mutex_, deadline) && !ended_) return false;
    }
    if (failure_) throw *failure_;
    return true;
  }
  [[nodiscard]] bool ended() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return ended_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool ended_ GUARDED_BY(mutex_) = false;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
};

class OperationQueue::PendingWork : public Work {
 public:
  PendingWork(std::shared_ptr<Pending> pending, std::function<void()> late) : pending_(std::move(pending)), late_(std::move(late)) {}
  void wait(Deadline deadline) override {
    if (!pending_->wait(deadline)) late_();
  }
  bool done() override { return pending_->ended(); }

 private:
  const std::shared_ptr<Pending> pending_;
  const std::function<void()> late_;
};

void OperationQueue::stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

WorkPtr OperationQueue::post(std::function<void()> operation, std::function<void()> late) {
  auto pending = std::make_shared<Pending>();
  MutexLock lock(mutex_);
  entries_.push_back({std::move(operation), pending});
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  changed_.notify_all();
  return std::make_unique<PendingWork>(std::move(pending), std::move(late));
}

bool OperationQueue::idle() {
  MutexLock lock(mutex_);
  return entries_.empty();
}

void OperationQueue::run() {
  while (true) {
    Entry entry;
    bool cancelled = false;
    {
      MutexLock lock(mutex_);
      while (entries_.empty() && !stopping_) changed_.wait(mutex_, Deadline::never());
      if (entries_.empty()) return;
      entry = entries_.front();
      cancelled = stopping_;
    }
    if (cancelled && !failed_) failed_ = error(Code::kCancelled, "the group was closed before the operation had begun");
    try {
      if (!failed_) entry.operation();
    } catch (const Error& e) {
      failed_ = e;
    } catch (const std::exception& e) {
      failed_ = error(Code::kInternal, "{}", e.what());
    }
    {
      MutexLock lock(mutex_);
      entries_.pop_front();
    }
    entry.pending->end(failed_);
  }
}

}  // namespace penstock::comm
