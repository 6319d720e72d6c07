#pragma once
// How the ranks of a group of processes carry out a collective: through shared memory where they share a host, by messages where they do not.
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/direct_exchange.h"
#include "comm/host_layout.h"
#include "comm/host_memory.h"
#include "comm/host_staging.h"

namespace penstock::comm {

// Blocking, on the calling thread; every rank calls the same, in the same order. All throw Error.
//
// One host:       shared memory.
// Several hosts:  each host's ranks sum in shared memory, each column of the layout sums its share of the tensor across hosts by messages, and the hosts' ranks
//                 gather in shared memory. A rank sends 2 · (m - 1) / m / g of a tensor for m hosts of g ranks, where a ring over all of them sends
//                 2 · (m g - 1) / (m g) (Horovod's hierarchical all-reduce).
// No shared memory, or a rank on each host: by messages among all (direct_exchange.h).
// Sums are made in the order of the ranks of each host, then in the order of the hosts: with consecutive numbers on one host, and on hosts of one rank, in the
// order of the ranks.
class GroupCollectives {
 public:
  struct Links {
    std::function<WorkPtr(const at::Tensor& tensor, int to)> send;
    std::function<WorkPtr(at::Tensor& tensor, int from)> recv;
    std::function<void(Work& work, int from)> await;
  };

  GroupCollectives(std::string group, int rank, HostLayout layout, Links links, HostMemory::Share share, HostMemory::GivenUp given_up);

  void reduce(const at::Tensor& flat, std::span<const int64_t> offsets, Reduce op, bool gather);
  void gather(const at::Tensor& flat, std::span<const int64_t> offsets);
  void reduce_rounded(const at::Tensor& flat, const at::Tensor& residual);
  void broadcast(const at::Tensor& flat, int root);
  // Zeroed, uint8 [bytes]; undefined where ranks share no memory. Reductions and gathers in it copy less.
  [[nodiscard]] at::Tensor buffer(int64_t bytes);
  // This rank takes part no more: those that wait for it in shared memory fail. From any thread that is not in one of the above.
  void leave();

 private:
  [[nodiscard]] Peers peers(std::vector<int> ranks) const;
  [[nodiscard]] int size() const { return static_cast<int>(all_.size()); }
  [[nodiscard]] bool hierarchical() const { return staging_ && !layout_.one_host(); }
  [[nodiscard]] std::vector<int64_t> column_parts(int64_t num_elements) const;
  void find_memory();
  void reduce_here(const at::Tensor& flat, std::span<const int64_t> offsets, Reduce op, bool gather);
  void gather_here(const at::Tensor& flat, std::span<const int64_t> offsets);
  void reduce_across(const at::Tensor& flat, Reduce op, const at::Tensor* residual);
  void scatter_across(const at::Tensor& flat, std::span<const int64_t> offsets);
  void gather_across(const at::Tensor& flat, std::span<const int64_t> offsets);
  [[nodiscard]] std::vector<Part> parts_of_column(std::span<const int64_t> offsets) const;
  // The part of `flat` that host `host` has, and in `offsets` its ranks' parts of that.
  [[nodiscard]] at::Tensor block(const at::Tensor& flat, std::span<const int64_t> all, size_t host, std::vector<int64_t>& offsets) const;

  const std::string group_;
  const int rank_;
  const HostLayout layout_;
  const Links links_;
  const HostMemory::Share share_;
  const HostMemory::GivenUp given_up_;
  std::vector<int> all_;   // every rank
  std::vector<int> here_;  // those of this host
  bool searched_ = false;
  std::optional<HostStaging> staging_;                // once found
  std::vector<std::shared_ptr<HostMemory>> buffers_;  // that buffer() gave out
  at::Tensor scratch_;
};

}  // namespace penstock::comm
