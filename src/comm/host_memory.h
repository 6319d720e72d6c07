#pragma once
// Memory that processes of one host share, and reductions in it: no copies through sockets.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace penstock::comm {

// One segment of shared memory for each member, mapped by all. Operations work in place on the same stretch of every segment: each member combines its
// part of it over all members, in their order, and copies the other parts from those who made them. All end with the same bits.
//
// Threads:   meet() and the operations from one thread at a time, the same ones in the same order on every member; the rest from any.
// Blocking:  meet() waits (on a futex) until all members have come.
// Faults:    a member that leaves or whose process ends is named by the others, kUnavailable, in less than a second; `given_up` ends a wait, too.
//            Segments have no name once all have opened them: nothing stays behind.
// Lifetime:  tensors of buffer() keep it alive.
class HostMemory : public std::enable_shared_from_this<HostMemory> {
 public:
  // Every rank of a group gives a text and gets those of all; blocks.
  using Share = std::function<std::vector<std::string>(const std::string& mine)>;
  // Asked a few times a second while waiting for a rank of the group: true ends the wait.
  using GivenUp = std::function<bool(int rank)>;

  // Collective over all ranks of a group, on each of which `members` are the ranks on its own host, this rank among them. nullptr, on all ranks of the group
  // alike, where one of them cannot: separate /dev/shm, or not enough of it. `given_up`: true once the group is dead.
  [[nodiscard]] static std::shared_ptr<HostMemory> connect(const std::string& group, int rank, const std::vector<int>& members, int64_t bytes,
                                                           const Share& share, GivenUp given_up);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  [[nodiscard]] int size() const { return static_cast<int>(segments_.size()); }
  [[nodiscard]] int member() const { return member_; }  // this rank's place among the members

  // This rank's segment, zeroed: uint8 [bytes].
  [[nodiscard]] Tensor buffer();
  [[nodiscard]] bool holds(const Tensor& tensor) const;
  [[nodiscard]] char* data(int member) const;

  // Waits until every member has come as far. Throws Error.
  void meet();
  // As those of Communicator, over the members, in a contiguous tensor inside buffer(); `reduce` with `gather` is an all_reduce.
  void reduce(const Tensor& tensor, std::span<const int64_t> offsets, Reduce op, bool gather);
  void gather(const Tensor& tensor, std::span<const int64_t> offsets);
  // This rank comes no more. The operation that waits for it, here and elsewhere, fails.
  void leave();

 private:
  struct Segment;
  HostMemory(std::vector<std::unique_ptr<Segment>> segments, int member, std::vector<int> ranks, std::string group, GivenUp given_up);
  void wait_for(size_t member);
  [[nodiscard]] Segment& own() const { return *segments_[static_cast<size_t>(member_)]; }
  void copy_other_parts(const Tensor& tensor, std::span<const int64_t> offsets);

  const std::vector<std::unique_ptr<Segment>> segments_;  // by member
  const int member_;
  const std::vector<int> ranks_;  // of the members, in the group
  const std::string group_;
  const GivenUp given_up_;
  uint32_t phase_ = 0;  // how often all have met
};

}  // namespace penstock::comm
