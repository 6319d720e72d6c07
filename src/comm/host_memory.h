#pragma once
// Sums between processes of one host through memory that all of them see: no copies through sockets.
#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/communicator.h"

namespace penstock::comm {

// One segment of shared memory for each rank, mapped by all. all_reduce() works in place on the same stretch of every segment: each rank sums its part
// of it over all ranks, in the order of the ranks, then copies the other parts from those who summed them. Every rank ends with the same bits.
//
// Threads:   any for all_reduce(), in the same order on every rank; one thread of its own does the work.
// Blocking:  only the Work does. Waiting threads sleep (futex).
// Faults:    a rank that ends in good order wakes the others, whose Work throws kUnavailable; one that is killed is noticed at the Work's
//            deadline, or by Liveness. Segments have no name once all have opened them: nothing stays behind.
// Lifetime:  tensors of buffer() keep it alive.
class HostMemory : public std::enable_shared_from_this<HostMemory> {
 public:
  // Collective over `group`. nullptr, on all ranks alike, where that cannot be: several hosts or separate /dev/shm, or not enough of it.
  [[nodiscard]] static std::shared_ptr<HostMemory> connect(Communicator& group, int64_t bytes, Deadline deadline);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  // This rank's segment, zeroed: uint8 [bytes].
  [[nodiscard]] Tensor buffer();
  [[nodiscard]] bool holds(const Tensor& tensor) const;
  // The sum over ranks of a contiguous float32 tensor inside buffer().
  [[nodiscard]] WorkPtr all_reduce(const Tensor& tensor);

 private:
  struct Segment;
  class Pending;
  class PendingWork;
  struct Operation {
    int64_t first = 0, count = 0;  // elements
    std::shared_ptr<Pending> pending;
  };
  HostMemory(std::vector<std::unique_ptr<Segment>> segments, int rank, std::string name);
  void run();
  void reduce(const Operation& operation);
  void sum_own_part(const Operation& operation);
  void copy_other_parts(const Operation& operation);
  void meet();
  [[nodiscard]] std::pair<int64_t, int64_t> part(const Operation& operation, int rank) const;

  const std::vector<std::unique_ptr<Segment>> segments_;  // by rank
  const int rank_;
  const std::string name_;
  uint32_t phase_ = 0;  // how often all ranks have met
  std::atomic<bool> stopping_{false};
  Mutex mutex_;
  CondVar changed_;
  std::deque<Operation> queue_ GUARDED_BY(mutex_);
  std::optional<Error> failed_ GUARDED_BY(mutex_);
  std::thread thread_;  // last: it uses the others
};

}  // namespace penstock::comm
