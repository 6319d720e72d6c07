#pragma once
// The ranks that share the layers of a stage, and what joins the parts of a layer's work (tensor parallelism; Shoeybi et al. 2019, arXiv 1909.08053).
#include <ATen/core/Tensor.h>

#include <span>

#include "comm/communicator.h"

namespace penstock::model {

// Which logits a head gives to each of the ranks that share it.
enum class SharedLogits {
  kWhole,  // those of all tokens
  kOwn,    // those of its own tokens: a loss sums over ranks (tensor_cross_entropy.h), and nobody holds all
};

// Threads:  one.
// Blocking: each operation waits for the other ranks, at most `timeout`; throws Error kDeadlineExceeded or kUnavailable naming group and rank.
// Order:    collectives: all ranks run the same layers over the same rows, forward and backward.
// Results:  the same bits on every rank.
// Lifetime: outlives layers and their graphs, which keep a pointer.
class TensorRanks {
 public:
  TensorRanks(comm::Communicator& group, seconds timeout, SharedLogits logits = SharedLogits::kWhole) : group_(group), timeout_(timeout), logits_(logits) {}

  [[nodiscard]] int rank() const { return group_.rank(); }
  [[nodiscard]] int size() const { return group_.size(); }
  [[nodiscard]] comm::Communicator& group() const { return group_; }
  [[nodiscard]] seconds timeout() const { return timeout_; }
  [[nodiscard]] SharedLogits logits() const { return logits_; }

  // x, the same on every rank, before each computes its own part with it: the backward pass sums the ranks' gradients.
  [[nodiscard]] at::Tensor share(const at::Tensor& x) const;
  // The sum of the ranks' x, which may be overwritten; the backward pass gives each rank the sum's gradient.
  [[nodiscard]] at::Tensor sum(const at::Tensor& x) const;
  // Columns of all ranks side by side: rank r has [..., offsets[r + 1] - offsets[r]]. The backward pass gives each its own.
  [[nodiscard]] at::Tensor gather(const at::Tensor& x, std::span<const int64_t> offsets) const;

  // Without gradients: in place.
  void sum_in_place(at::Tensor& x) const;
  void max_in_place(at::Tensor& x) const;

 private:
  comm::Communicator& group_;
  const seconds timeout_;
  const SharedLogits logits_;
};

}  // namespace penstock::model
