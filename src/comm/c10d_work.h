#pragma once
// Pending operations of a c10d group, and what is shared by all operations of one group. Internal to c10d_communicator.cpp.
#include <ATen/core/Tensor.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/c10d_compat.h"
#include "comm/communicator.h"

namespace penstock::comm {

// One group's backend, and its first error.
//
// Threads: any. Shared by the communicator and the works that it has handed out.
class C10dGroup {
 public:
  C10dGroup(std::string name, int rank, int size, compat::BackendPtr backend)
      : name_(std::move(name)), rank_(rank), size_(size), backend_(std::move(backend)) {}
  ~C10dGroup();
  C10dGroup(const C10dGroup&) = delete;
  C10dGroup& operator=(const C10dGroup&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] compat::Backend& backend() { return *backend_; }  // REQUIRES: size() > 1

  [[nodiscard]] bool dead() const { return dead_; }
  void throw_if_dead() const EXCLUDES(mutex_);
  // Makes the group dead with this error unless it is already, closes its connections, and throws the first error.
  [[noreturn]] void fail(Error failure) EXCLUDES(mutex_);
  // The rank that an operation of this group's own thread waits for; -1: none.
  void set_awaited(int rank) { awaited_ = rank; }
  [[nodiscard]] int awaited() const { return awaited_; }
  void count_sent(int64_t bytes) { bytes_sent_ += bytes; }
  [[nodiscard]] int64_t bytes_sent() const { return bytes_sent_; }
  // Remembers a collective until it is complete: the backend's destructor waits for each.
  void track(const c10::intrusive_ptr<::c10d::Work>& collective) EXCLUDES(mutex_);

 private:
  const std::string name_;
  const int rank_;
  const int size_;
  const compat::BackendPtr backend_;  // null in a group of one
  std::atomic<bool> dead_ = false;
  std::atomic<int> awaited_ = -1;
  std::atomic<int64_t> bytes_sent_ = 0;
  mutable Mutex mutex_;
  std::optional<Error> first_error_ GUARDED_BY(mutex_);
  std::vector<c10::intrusive_ptr<::c10d::Work>> collectives_ GUARDED_BY(mutex_);
};

// What an operation is, for its error message.
struct Operation {
  const char* name = "";
  int peer = -1;  // -1: all
  int tag = -1;
  int64_t num_elements = 0;
  at::ScalarType dtype = at::ScalarType::Undefined;
  const char* within = nullptr;  // the collective whose part it is
  int channel = -1;              // Gloo's tag

  // "recv of 4096 x Float from rank 1, tag 7, in group 'pipe[1]' (this is its rank 0 of 2)"
  [[nodiscard]] std::string describe(const C10dGroup& group) const;
};

// Runs `launch`; a throw of the backend becomes the group's error.
template <typename Launch>
c10::intrusive_ptr<::c10d::Work> launch_in(C10dGroup& group, const Operation& operation, Launch launch) {
  group.throw_if_dead();
  try {
    return launch();
  } catch (const std::exception&) {
    group.fail(error(Code::kUnavailable, "{}: {}", operation.describe(group), compat::error_text(std::current_exception())));
  }
}

[[nodiscard]] WorkPtr complete_work();
// `finish` runs in the wait() that sees success, before it returns; may be empty.
[[nodiscard]] WorkPtr collective_work(std::shared_ptr<C10dGroup> group, const Operation& operation, c10::intrusive_ptr<::c10d::Work> work,
                                      std::function<void()> finish);
[[nodiscard]] WorkPtr message_work(std::shared_ptr<C10dGroup> group, const Operation& operation, c10::intrusive_ptr<::c10d::Work> work);

}  // namespace penstock::comm
