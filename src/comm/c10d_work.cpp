#include "comm/c10d_work.h"

#include <algorithm>
#include <functional>
#include <thread>

namespace penstock::comm {
namespace {

// Zero means "no timeout" to c10d, and a deadline that has passed still allows to collect what is complete. Rounded up: a wait that c10d ends before the
// deadline would be taken for a peer's failure.
milliseconds c10d_timeout(Deadline deadline) {
  return std::clamp<milliseconds>(deadline.remaining(), milliseconds(0), std::chrono::hours(24 * 365)) + milliseconds(1);
}

class CompleteWork : public Work {
 public:
  void wait(Deadline /*deadline*/) override {}
  bool done() override { return true; }
};

// Note [Polling a message]
// Gloo tells a message's completion to a thread that waits for it, and to nobody else; a wait that times out closes the group's connections.
// So wait() waits in the caller's thread, which costs nothing, and the first done() starts a thread that waits instead of the caller.
// The destructor ends that thread by abort(), which wakes a wait without harm to the group.
class MessageWork : public Work {
 public:
  MessageWork(std::shared_ptr<C10dGroup> group, const Operation& operation, PostedPtr message)
      : group_(std::move(group)), operation_(operation), message_(std::move(message)) {}

  ~MessageWork() override {
    if (!watcher_.joinable()) return;
    try {
      work_->abort();
    } catch (const std::exception&) {  // ended by itself meanwhile
    }
    watcher_.join();
  }

  void wait(Deadline deadline) override {
    if (finished_) return;
    group_->throw_if_dead();
    std::exception_ptr failure;
    try {
      if (!work_) work_ = message_->wait(deadline);
      if (!work_) fail_of_deadline();
      if (watcher_.joinable()) {
        if (!watched_until(deadline)) fail_of_deadline();
        failure = watched_failure();
      } else {
        failure = wait_here(c10d_timeout(deadline));
      }
    } catch (const Error&) {
      throw;
    } catch (const std::exception&) {
      failure = std::current_exception();
    }
    if (failure) {
      group_->throw_if_dead();
      if (deadline.passed()) fail_of_deadline();
      group_->fail(error(Code::kUnavailable, "{}: {}", operation_.describe(*group_), compat::error_text(failure)));
    }
    finished_ = true;
  }

  bool done() override {
    if (finished_ || group_->dead()) return true;
    if (!watcher_.joinable()) {
      if (!message_->settled()) return false;
      try {
        work_ = message_->wait(Deadline::never());
      } catch (const std::exception&) {
        return true;  // wait() throws
      }
      watcher_ = std::thread([this] { watch(); });
    }
    MutexLock lock(mutex_);
    return watch_ended_;
  }

 private:
  [[noreturn]] void fail_of_deadline() {
    group_->fail(error(Code::kDeadlineExceeded, "{} was not complete by its deadline; the other side has not posted its part",
                       operation_.describe(*group_)));
  }

  std::exception_ptr wait_here(milliseconds timeout) {
    try {
      work_->wait(timeout);
      return nullptr;
    } catch (const std::exception&) {
      return std::current_exception();
    }
  }

  void watch() {
    std::exception_ptr failure = wait_here(c10d_timeout(Deadline::never()));
    MutexLock lock(mutex_);
    watch_ended_ = true;
    watch_failure_ = std::move(failure);
    watch_end_.notify_all();
  }

  bool watched_until(Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (!watch_ended_) {
      if (!watch_end_.wait(mutex_, deadline)) break;
    }
    return watch_ended_;
  }

  std::exception_ptr watched_failure() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return watch_failure_;
  }

  const std::shared_ptr<C10dGroup> group_;
  const Operation operation_;
  const PostedPtr message_;
  c10::intrusive_ptr<::c10d::Work> work_;  // once Gloo has the message
  bool finished_ = false;
  std::thread watcher_;
  Mutex mutex_;
  CondVar watch_end_;
  bool watch_ended_ GUARDED_BY(mutex_) = false;
  std::exception_ptr watch_failure_ GUARDED_BY(mutex_);
};

}  // namespace

void C10dGroup::throw_if_dead() const {
  if (!dead_) return;
  MutexLock lock(mutex_);
  throw *first_error_;
}

void C10dGroup::fail(Error failure) {
  {
    MutexLock lock(mutex_);
    if (first_error_) throw *first_error_;
    first_error_ = failure;
    dead_ = true;
  }
  if (links_) links_->close();
  throw failure;
}

std::string Operation::describe(const C10dGroup& group) const {
  std::string text = name;
  if (dtype != at::ScalarType::Undefined) text += fmt::format(" of {} x {}", num_elements, c10::toString(dtype));
  if (peer >= 0) text += fmt::format(" {} rank {}", std::string_view(name) == "recv" ? "from" : std::string_view(name) == "send" ? "to" : "of", peer);
  if (tag >= 0) text += fmt::format(", tag {},", tag);
  if (within != nullptr) text += fmt::format(" for {}", within);
  return fmt::format("{} in group '{}' (this is its rank {} of {})", text, group.name(), group.rank(), group.size());
}

WorkPtr complete_work() { return std::make_unique<CompleteWork>(); }

WorkPtr message_work(std::shared_ptr<C10dGroup> group, const Operation& operation, PostedPtr message) {
  return std::make_unique<MessageWork>(std::move(group), operation, std::move(message));
}

}  // namespace penstock::comm
