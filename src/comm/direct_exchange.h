#pragma once
// Reductions and gathers in which every rank sends to every other one directly. Internal to the communicators.
#include <ATen/core/Tensor.h>

#include <functional>
#include <span>

#include "comm/communicator.h"

namespace penstock::comm {

// How the ranks of a group send to each other. Messages between two ranks arrive in the order in which they were sent.
struct Peers {
  int rank = 0;
  int size = 1;
  std::function<WorkPtr(const at::Tensor& tensor, int to)> send;
  std::function<WorkPtr(at::Tensor& tensor, int from)> recv;
  std::function<void(Work& work, int from)> await;  // waits for a receive; throws Error
};

// Blocking, on the calling thread; every rank calls the same. Every rank's part of a tensor travels straight to the rank that sums it, and the sum
// straight to all: 2 · (n - 1) / n of the tensor sent by each rank, as with a ring, but in two hops instead of 2 · (n - 1), and added in the order of
// the ranks. A tensor moves in rounds, so that sums are made while more arrives. `flat` and `offsets` as in Communicator.
//
// Memory: `scratch` grows to two rounds of all peers' parts, 2 · (n - 1) MiB, and is for the next call.
class DirectExchange {
 public:
  DirectExchange(const Peers& peers, at::Tensor flat, std::span<const int64_t> offsets, at::Tensor& scratch);

  // Sums this rank's part; with `gather` everybody gets everybody's sums, too. `lost` as for combine(): float32, as large as `flat`, or null.
  void reduce(Reduce op, bool gather, float* lost = nullptr);
  void gather();

 private:
  struct Range {
    int64_t begin = 0, count = 0;
  };
  [[nodiscard]] Range range(int rank, int64_t round) const;
  [[nodiscard]] at::Tensor piece(int rank, int64_t round) const;
  [[nodiscard]] at::Tensor staging(int peer, int64_t round) const;
  void post_parts(int64_t round);
  void sum_part(int64_t round, Reduce op, float* lost);
  void post_sums(int64_t round);

  const Peers& peers_;
  const at::Tensor flat_;
  const std::span<const int64_t> offsets_;
  const int64_t round_elements_;
  int64_t num_rounds_ = 0;
  at::Tensor staging_;                         // [2, n, round_elements_]; a rank's own is not used
  std::vector<WorkPtr> parts_[2];              // receives of an even and of an odd round, by peer
  std::vector<std::pair<WorkPtr, int>> sums_;  // receives, with their peers
  std::vector<WorkPtr> sends_;
};

// A reduction for small tensors: everything to everybody at once, (n - 1) tensors sent by each rank in a single hop; the same bits as above.
void exchange_whole(const Peers& peers, const at::Tensor& tensor, Reduce op);

}  // namespace penstock::comm
