#pragma once
// Reductions and gathers between processes of one host through memory that all of them see: no copies through sockets.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace penstock::comm {

// One segment of shared memory for each rank, mapped by all. Operations work in place on the same stretch of every segment: each rank combines its part
// of it over all ranks, in the order of the ranks, and copies the other parts from those who made them. Every rank ends with the same bits.
//
// Threads:   the operations from one thread at a time, the same ones in the same order on every rank; the rest from any.
// Blocking:  operations wait (on a futex) until all ranks have come.
// Faults:    a rank that leaves or whose process ends is named by the others, kUnavailable, in less than a second; `given_up` ends a wait, too.
//            Segments have no name once all have opened them: nothing stays behind.
// Lifetime:  tensors of buffer() keep it alive.
class HostMemory : public std::enable_shared_from_this<HostMemory> {
 public:
  // Collective over `group`. nullptr, on all ranks alike, where that cannot be: several hosts or separate /dev/shm, or not enough of it.
  // `given_up`: true once this rank's group is dead.
  [[nodiscard]] static std::shared_ptr<HostMemory> connect(Communicator& group, int64_t bytes, std::function<bool()> given_up, Deadline deadline);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  // This rank's segment, zeroed: uint8 [bytes].
  [[nodiscard]] Tensor buffer();
  [[nodiscard]] bool holds(const Tensor& tensor) const;

  // As those of Communicator, in a contiguous tensor inside buffer(); `reduce` with `gather` is an all_reduce. Throw Error.
  void reduce(const Tensor& tensor, std::span<const int64_t> offsets, Reduce op, bool gather);
  void gather(const Tensor& tensor, std::span<const int64_t> offsets);
  // This rank comes no more. The operation that waits for it, here and elsewhere, fails.
  void leave();

 private:
  struct Segment;
  HostMemory(std::vector<std::unique_ptr<Segment>> segments, int rank, std::string name, std::function<bool()> given_up);
  void meet();
  void wait_for(size_t rank);
  [[nodiscard]] Segment& own() const { return *segments_[static_cast<size_t>(rank_)]; }
  void copy_other_parts(const Tensor& tensor, std::span<const int64_t> offsets);

  const std::vector<std::unique_ptr<Segment>> segments_;  // by rank
  const int rank_;
  const std::string name_;
  const std::function<bool()> given_up_;
  uint32_t phase_ = 0;  // how often all ranks have met
};

}  // namespace penstock::comm
