#include "comm/group_collectives.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "comm/combine.h"
#include "comm/flat_parts.h"

namespace penstock::comm {
namespace {

constexpr int64_t kSmallBytes = 16 << 10;  // sent whole

}  // namespace

GroupCollectives::GroupCollectives(std::string group, int rank, HostLayout layout, Links links, HostMemory::Share share, HostMemory::GivenUp given_up)
    : group_(std::move(group)), rank_(rank), layout_(std::move(layout)), links_(std::move(links)), share_(std::move(share)), given_up_(std::move(given_up)) {
  for (const auto& ranks : layout_.hosts) all_.insert(all_.end(), ranks.begin(), ranks.end());
  std::sort(all_.begin(), all_.end());
  here_ = layout_.hosts[static_cast<size_t>(layout_.host_of(rank))];
}

// At the first use: a group that only sends and receives needs none.
void GroupCollectives::find_memory() {
  if (searched_) return;
  searched_ = true;
  if (!layout_.shared()) return;
  if (auto memory = HostMemory::connect(group_, rank_, here_, HostStaging::kBytes, share_, given_up_)) staging_.emplace(std::move(memory));
}

at::Tensor GroupCollectives::buffer(int64_t bytes) {
  find_memory();
  auto memory = staging_ ? HostMemory::connect(group_, rank_, here_, bytes, share_, given_up_) : nullptr;
  if (!memory) return {};
  buffers_.push_back(memory);
  return memory->buffer();
}

void GroupCollectives::leave() {
  for (const auto& memory : buffers_) memory->leave();
  if (staging_) staging_->memory().leave();
}

// A group of some of the ranks, numbered in the order given.
Peers GroupCollectives::peers(std::vector<int> ranks) const {
  Peers peers;
  peers.size = static_cast<int>(ranks.size());
  peers.rank = static_cast<int>(std::find(ranks.begin(), ranks.end(), rank_) - ranks.begin());
  const auto group = std::make_shared<const std::vector<int>>(std::move(ranks));
  peers.send = [this, group](const at::Tensor& tensor, int to) { return links_.send(tensor, (*group)[static_cast<size_t>(to)]); };
  peers.recv = [this, group](at::Tensor& tensor, int from) { return links_.recv(tensor, (*group)[static_cast<size_t>(from)]); };
  peers.await = [this, group](Work& work, int from) { links_.await(work, from < 0 ? -1 : (*group)[static_cast<size_t>(from)]); };
  return peers;
}

void GroupCollectives::reduce(const at::Tensor& flat, std::span<const int64_t> offsets, Reduce op, bool gather) {
  find_memory();
  if (hierarchical()) {
    if (gather || !layout_.regular()) return reduce_across(flat, op, nullptr);
    return scatter_across(flat, offsets);
  }
  if (staging_) return reduce_here(flat, offsets, op, gather);
  if (gather && static_cast<int64_t>(flat.nbytes()) <= kSmallBytes) return exchange_small(peers(all_), flat, op);
  const Peers everyone = peers(all_);
  DirectExchange(everyone, flat, parts_of(offsets), scratch_).reduce(op, gather);
}

void GroupCollectives::gather(const at::Tensor& flat, std::span<const int64_t> offsets) {
  find_memory();
  if (hierarchical() && layout_.regular()) return gather_across(flat, offsets);
  if (staging_ && layout_.one_host()) return gather_here(flat, offsets);
  const Peers everyone = peers(all_);
  DirectExchange(everyone, flat, parts_of(offsets), scratch_).gather();
}

void GroupCollectives::reduce_rounded(const at::Tensor& flat, const at::Tensor& residual) {
  find_memory();
  if (hierarchical()) return reduce_across(flat, Reduce::kSum, &residual);
  const std::vector<int64_t> offsets = even_parts(flat.numel(), size());
  if (staging_) return reduce_here(flat, offsets, Reduce::kSum, true);
  exchange_rounded(peers(all_), flat, residual, scratch_);
}

void GroupCollectives::broadcast(const at::Tensor& flat, int root) {
  find_memory();
  if (staging_ && layout_.one_host()) return staging_->broadcast(flat, layout_.column_of(root));
  exchange_broadcast(peers(all_), flat, root);
}

// ---- on this host ----

void GroupCollectives::reduce_here(const at::Tensor& flat, std::span<const int64_t> offsets, Reduce op, bool gather) {
  if (flat.numel() == 0) return;
  for (const auto& memory : buffers_) {
    if (memory->holds(flat)) return memory->reduce(flat, offsets, op, gather);
  }
  staging_->reduce(flat, offsets, op, gather);
}

void GroupCollectives::gather_here(const at::Tensor& flat, std::span<const int64_t> offsets) {
  if (flat.numel() == 0) return;
  for (const auto& memory : buffers_) {
    if (memory->holds(flat)) return memory->gather(flat, offsets);
  }
  staging_->gather(flat, offsets);
}

// ---- across hosts ----

// A part for each rank of this host: even ones for the columns, none for ranks beyond.
std::vector<int64_t> GroupCollectives::column_parts(int64_t num_elements) const {
  std::vector<int64_t> offsets = even_parts(num_elements, layout_.columns);
  offsets.resize(here_.size() + 1, num_elements);
  return offsets;
}

void GroupCollectives::reduce_across(const at::Tensor& flat, Reduce op, const at::Tensor* residual) {
  const std::vector<int64_t> columns = column_parts(flat.numel());
  reduce_here(flat, columns, op, false);
  const auto column = static_cast<size_t>(layout_.column_of(rank_));
  const int64_t begin = columns[column], count = columns[column + 1] - begin;
  if (count > 0) {
    std::vector<int> ranks;
    for (const auto& host : layout_.hosts) ranks.push_back(host[column]);
    const Peers across = peers(std::move(ranks));
    const at::Tensor share = flat.narrow(0, begin, count);
    if (residual != nullptr) {
      exchange_rounded(across, share, residual->narrow(0, begin, count), scratch_);
    } else if (static_cast<int64_t>(share.nbytes()) <= kSmallBytes) {
      exchange_small(across, share, op);
    } else {
      DirectExchange(across, share, parts_of(even_parts(count, across.size)), scratch_).reduce(op, true);
    }
  }
  gather_here(flat, columns);
}

at::Tensor GroupCollectives::block(const at::Tensor& flat, std::span<const int64_t> all, size_t host, std::vector<int64_t>& offsets) const {
  const auto first = static_cast<size_t>(layout_.hosts[host].front());
  offsets.clear();
  for (size_t i = 0; i <= layout_.hosts[host].size(); ++i) offsets.push_back(all[first + i] - all[first]);
  return flat.narrow(0, all[first], offsets.back());
}

std::vector<Part> GroupCollectives::parts_of_column(std::span<const int64_t> offsets) const {
  std::vector<Part> parts;
  for (const auto& ranks : layout_.hosts) {
    const auto rank = static_cast<size_t>(ranks[static_cast<size_t>(layout_.column_of(rank_))]);
    parts.push_back({offsets[rank], offsets[rank + 1]});
  }
  return parts;
}

// REQUIRES: a regular layout. Each column first has its host's sums of the parts of all its ranks.
void GroupCollectives::scatter_across(const at::Tensor& flat, std::span<const int64_t> offsets) {
  std::vector<int64_t> inner;
  for (size_t host = 0; host < layout_.hosts.size(); ++host) {
    const at::Tensor part = block(flat, offsets, host, inner);
    reduce_here(part, inner, Reduce::kSum, false);
  }
  std::vector<int> ranks;
  for (const auto& host : layout_.hosts) ranks.push_back(host[static_cast<size_t>(layout_.column_of(rank_))]);
  const Peers across = peers(std::move(ranks));
  DirectExchange(across, flat, parts_of_column(offsets), scratch_).reduce(Reduce::kSum, false);
}

void GroupCollectives::gather_across(const at::Tensor& flat, std::span<const int64_t> offsets) {
  std::vector<int> ranks;
  for (const auto& host : layout_.hosts) ranks.push_back(host[static_cast<size_t>(layout_.column_of(rank_))]);
  const Peers across = peers(std::move(ranks));
  DirectExchange(across, flat, parts_of_column(offsets), scratch_).gather();
  std::vector<int64_t> inner;
  for (size_t host = 0; host < layout_.hosts.size(); ++host) {
    const at::Tensor part = block(flat, offsets, host, inner);
    gather_here(part, inner);
  }
}

}  // namespace penstock::comm
