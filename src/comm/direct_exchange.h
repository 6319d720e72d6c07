#pragma once
// Reductions and gathers in which every rank sends to every other one directly. Internal to the communicators.
#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "comm/flat_parts.h"

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
// the ranks. A tensor moves in rounds, so that sums are made while more arrives. A part of `flat` for each rank, apart from each other; what lies in none is left alone.
//
// Memory: `scratch` grows to two rounds of all peers' parts, 2 · (n - 1) MiB, and is for the next call.
class DirectExchange {
 public:
  DirectExchange(const Peers& peers, at::Tensor flat, std::vector<Part> parts, at::Tensor& scratch);

  // Sums this rank's part; with `gather` everybody gets everybody's sums, too. `lost` as for combine(): float32, as large as `flat`, or null.
  void reduce(Reduce op, bool gather, float* lost = nullptr);
  void gather();

 private:
  [[nodiscard]] Part range(int rank, int64_t round) const;
  [[nodiscard]] at::Tensor piece(int rank, int64_t round) const;
  [[nodiscard]] at::Tensor staging(int peer, int64_t round) const;
  void post_parts(int64_t round);
  void sum_part(int64_t round, Reduce op, float* lost);
  void post_sums(int64_t round);

  const Peers& peers_;
  const at::Tensor flat_;
  const std::vector<Part> parts_;
  const int64_t round_elements_;
  int64_t num_rounds_ = 0;
  at::Tensor staging_;                         // [2, n, round_elements_]; a rank's own is not used
  std::vector<WorkPtr> receives_[2];           // of an even and of an odd round, by peer
  std::vector<std::pair<WorkPtr, int>> sums_;  // receives, with their peers
  std::vector<WorkPtr> sends_;
};

// An all_reduce for small tensors, with the same bits. Up to four ranks: everything to everybody at once, a single hop. More: up a tree, in which each
// rank passes on what its subtree brings, and the result down again; 2 · log4(n) hops, and a rank talks to five others at most.
void exchange_small(const Peers& peers, const at::Tensor& tensor, Reduce op);

// From the root down such a tree.
void exchange_broadcast(const Peers& peers, const at::Tensor& tensor, int root);

// As Communicator::all_reduce_rounded.
void exchange_rounded(const Peers& peers, const at::Tensor& flat, const at::Tensor& residual, at::Tensor& scratch);

}  // namespace penstock::comm
