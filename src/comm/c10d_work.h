#pragma once
// Pending messages of a c10d group, and what is shared by all operations of one group. Internal to c10d_communicator.cpp.
#include <ATen/core/Tensor.h>

#include <atomic>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/c10d_pairs.h"
#include "comm/communicator.h"

namespace penstock::comm {

// One group's connections, and its first error.
//
// Threads: any. Shared by the communicator and the works that it has handed out.
class C10dGroup {
 public:
  // `store`: of the group alone; null in a group of one.
  C10dGroup(std::string name, int rank, int size, std::shared_ptr<const Network> network, compat::StorePtr store)
      : name_(std::move(name)), rank_(rank), size_(size), store_(std::move(store)) {
    if (store_) links_.emplace(std::move(network), store_, rank, size);
  }
  C10dGroup(const C10dGroup&) = delete;
  C10dGroup& operator=(const C10dGroup&) = delete;

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] int rank() const { return rank_; }
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] PairLinks& links() { return *links_; }       // REQUIRES: size() > 1
  [[nodiscard]] ::c10d::Store& store() { return *store_; }  // the same

  [[nodiscard]] bool dead() const { return dead_; }
  void throw_if_dead() const EXCLUDES(mutex_);
  // Makes the group dead with this error unless it is already, closes its connections, and throws the first error.
  [[noreturn]] void fail(Error failure) EXCLUDES(mutex_);
  // The rank that an operation of this group's own thread waits for; -1: none.
  void set_awaited(int rank) { awaited_ = rank; }
  [[nodiscard]] int awaited() const { return awaited_; }
  // Asked by an operation that waits for a rank: the group is closed, here or elsewhere.
  [[nodiscard]] bool given_up(int awaited_rank) {
    set_awaited(awaited_rank);
    return links_->given_up();
  }
  void count_sent(int64_t bytes) { bytes_sent_ += bytes; }
  [[nodiscard]] int64_t bytes_sent() const { return bytes_sent_; }

 private:
  const std::string name_;
  const int rank_;
  const int size_;
  const compat::StorePtr store_;
  std::optional<PairLinks> links_;
  std::atomic<bool> dead_ = false;
  std::atomic<int> awaited_ = -1;
  std::atomic<int64_t> bytes_sent_ = 0;
  mutable Mutex mutex_;
  std::optional<Error> first_error_ GUARDED_BY(mutex_);
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

[[nodiscard]] WorkPtr complete_work();
[[nodiscard]] WorkPtr message_work(std::shared_ptr<C10dGroup> group, const Operation& operation, PostedPtr message);

}  // namespace penstock::comm
