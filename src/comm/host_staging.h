#pragma once
// Reductions and gathers between processes of one host for tensors that lie anywhere: through shared memory, piece by piece.
#include <cstdint>
#include <memory>
#include <span>

#include "comm/host_memory.h"

namespace penstock::comm {

// Blocking, on the calling thread; every member calls the same. Tensors move in rounds: each member copies a piece of each part into its segment, combines
// the pieces of its own part from all segments, and copies out what the others combined. Rounds take the two halves of the memory by turns, so that
// nobody waits for others to have read: whoever is a round ahead has met them in between.
class HostStaging {
 public:
  static constexpr int64_t kBytes = 2 << 20;  // of each segment

  explicit HostStaging(std::shared_ptr<HostMemory> memory) : memory_(std::move(memory)) {}

  // As those of Communicator. A small tensor that is reduced and gathered takes a single meeting: every member combines all of it.
  void reduce(const Tensor& flat, std::span<const int64_t> offsets, Reduce op, bool gather);
  void gather(const Tensor& flat, std::span<const int64_t> offsets);
  void broadcast(const Tensor& flat, int root);

  [[nodiscard]] HostMemory& memory() { return *memory_; }

 private:
  struct Round;
  void turn() { half_ ^= 1; }
  [[nodiscard]] char* slot(int member, int64_t offset) const { return memory_->data(member) + half_ * (kBytes / 2) + offset; }
  void reduce_small(const Tensor& flat, Reduce op);

  const std::shared_ptr<HostMemory> memory_;
  int64_t half_ = 0;
};

}  // namespace penstock::comm
