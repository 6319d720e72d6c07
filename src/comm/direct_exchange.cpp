#include "comm/direct_exchange.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "comm/combine.h"

namespace penstock::comm {
namespace {

constexpr int64_t kRoundBytes = 1 << 20;  // of one rank's part

}  // namespace

DirectExchange::DirectExchange(const Peers& peers, at::Tensor flat, std::span<const int64_t> offsets, at::Tensor& scratch)
    : peers_(peers), flat_(std::move(flat)), offsets_(offsets), round_elements_(kRoundBytes / static_cast<int64_t>(flat_.element_size())) {
  int64_t largest = 0;
  for (size_t rank = 0; rank + 1 < offsets.size(); ++rank) largest = std::max(largest, offsets[rank + 1] - offsets[rank]);
  num_rounds_ = (largest + round_elements_ - 1) / round_elements_;
  const int64_t bytes = 2 * peers.size * std::min(largest, round_elements_) * static_cast<int64_t>(flat_.element_size());
  if (!scratch.defined() || scratch.numel() < bytes) scratch = at::empty({bytes}, at::kByte);
  staging_ = scratch.narrow(0, 0, bytes).view(flat_.scalar_type()).view({2, peers.size, -1});
}

void DirectExchange::reduce(Reduce op, bool gather, float* lost) {
  for (int64_t round = 0; round <= num_rounds_; ++round) {
    if (round < num_rounds_) post_parts(round);
    if (round == 0) continue;
    sum_part(round - 1, op, lost);
    if (gather) post_sums(round - 1);
  }
  for (const auto& [work, from] : sums_) peers_.await(*work, from);
  for (const WorkPtr& send : sends_) peers_.await(*send, -1);
}

void DirectExchange::gather() {
  for (int64_t round = 0; round < num_rounds_; ++round) post_sums(round);
  for (const auto& [work, from] : sums_) peers_.await(*work, from);
  for (const WorkPtr& send : sends_) peers_.await(*send, -1);
}

DirectExchange::Range DirectExchange::range(int rank, int64_t round) const {
  const auto r = static_cast<size_t>(rank);
  const int64_t begin = std::min(offsets_[r + 1], offsets_[r] + round * round_elements_);
  return {begin, std::min(offsets_[r + 1], begin + round_elements_) - begin};
}

at::Tensor DirectExchange::piece(int rank, int64_t round) const {
  const auto [begin, count] = range(rank, round);
  return flat_.narrow(0, begin, count);
}

at::Tensor DirectExchange::staging(int peer, int64_t round) const {
  return staging_[round % 2][peer].narrow(0, 0, range(peers_.rank, round).count);
}

// Each peer's share of this rank's part comes, and this rank's share of each peer's part goes.
void DirectExchange::post_parts(int64_t round) {
  auto& receives = parts_[round % 2];
  receives.clear();
  receives.resize(static_cast<size_t>(peers_.size));
  for (int step = 1; step < peers_.size; ++step) {
    const int from = (peers_.rank + peers_.size - step) % peers_.size;  // not all to rank 0 at first
    if (range(peers_.rank, round).count > 0) {
      at::Tensor target = staging(from, round);
      receives[static_cast<size_t>(from)] = peers_.recv(target, from);
    }
    const int to = (peers_.rank + step) % peers_.size;
    if (range(to, round).count > 0) sends_.push_back(peers_.send(piece(to, round), to));
  }
}

void DirectExchange::sum_part(int64_t round, Reduce op, float* lost) {
  const auto [begin, count] = range(peers_.rank, round);
  if (count == 0) return;
  const at::Tensor own = piece(peers_.rank, round);
  std::vector<const void*> sources;
  for (int rank = 0; rank < peers_.size; ++rank) {
    if (rank != peers_.rank) peers_.await(*parts_[round % 2][static_cast<size_t>(rank)], rank);
    sources.push_back(rank == peers_.rank ? own.data_ptr() : staging(rank, round).data_ptr());
  }
  combine(sources, own.data_ptr(), count, flat_.scalar_type(), op, lost == nullptr ? nullptr : lost + begin);
}

// Also without a sum: this rank's part goes to all, and theirs come.
void DirectExchange::post_sums(int64_t round) {
  for (int step = 1; step < peers_.size; ++step) {
    const int from = (peers_.rank + peers_.size - step) % peers_.size;
    if (range(from, round).count > 0) {
      at::Tensor target = piece(from, round);
      sums_.emplace_back(peers_.recv(target, from), from);
    }
    const int to = (peers_.rank + step) % peers_.size;
    if (range(peers_.rank, round).count > 0) sends_.push_back(peers_.send(piece(peers_.rank, round), to));
  }
}

void exchange_whole(const Peers& peers, const at::Tensor& tensor, Reduce op) {
  const at::Tensor received = at::empty({peers.size, tensor.numel()}, tensor.options());
  std::vector<WorkPtr> receives(static_cast<size_t>(peers.size));
  std::vector<WorkPtr> sends;
  for (int step = 1; step < peers.size; ++step) {
    const int from = (peers.rank + peers.size - step) % peers.size;
    at::Tensor target = received[from];
    receives[static_cast<size_t>(from)] = peers.recv(target, from);
    sends.push_back(peers.send(tensor, (peers.rank + step) % peers.size));
  }
  std::vector<const void*> sources;
  for (int rank = 0; rank < peers.size; ++rank) {
    if (rank != peers.rank) peers.await(*receives[static_cast<size_t>(rank)], rank);
    sources.push_back(rank == peers.rank ? tensor.data_ptr() : received[rank].data_ptr());
  }
  for (const WorkPtr& send : sends) peers.await(*send, -1);  // before the tensor changes
  combine(sources, tensor.data_ptr(), tensor.numel(), tensor.scalar_type(), op);
}

}  // namespace penstock::comm
