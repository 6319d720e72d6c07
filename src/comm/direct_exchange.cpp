#include "comm/direct_exchange.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "comm/combine.h"

namespace penstock::comm {
namespace {

constexpr int64_t kRoundBytes = 1 << 20;  // of one rank's part
constexpr int kArity = 4;                 // of trees: node i has the children 4 i + 1 … 4 i + 4

int parent_of(int node) { return (node - 1) / kArity; }

std::vector<int> children_of(int node, int size) {
  std::vector<int> children;
  for (int child = kArity * node + 1; child <= kArity * node + kArity && child < size; ++child) children.push_back(child);
  return children;
}

// A node, then each child's subtree.
void add_subtree(int node, int size, std::vector<int>& nodes) {
  nodes.push_back(node);
  for (const int child : children_of(node, size)) add_subtree(child, size, nodes);
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

}  // namespace

DirectExchange::DirectExchange(const Peers& peers, at::Tensor flat, std::vector<Part> parts, at::Tensor& scratch)
    : peers_(peers), flat_(std::move(flat)), parts_(std::move(parts)), round_elements_(kRoundBytes / static_cast<int64_t>(flat_.element_size())) {
  int64_t largest = 0;
  for (const Part& part : parts_) largest = std::max(largest, part.count());
  num_rounds_ = (largest + round_elements_ - 1) / round_elements_;
  const int64_t width = std::min(largest, round_elements_);
  const int64_t bytes = 2 * peers.size * width * static_cast<int64_t>(flat_.element_size());
  if (!scratch.defined() || scratch.numel() < bytes) scratch = at::empty({bytes}, at::kByte);
  staging_ = scratch.narrow(0, 0, bytes).view(flat_.scalar_type()).view({2, peers.size, width});
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

Part DirectExchange::range(int rank, int64_t round) const {
  const Part& part = parts_[static_cast<size_t>(rank)];
  const int64_t begin = std::min(part.end, part.begin + round * round_elements_);
  return {begin, std::min(part.end, begin + round_elements_)};
}

at::Tensor DirectExchange::piece(int rank, int64_t round) const {
  const Part part = range(rank, round);
  return flat_.narrow(0, part.begin, part.count());
}

at::Tensor DirectExchange::staging(int peer, int64_t round) const {
  return staging_[round % 2][peer].narrow(0, 0, range(peers_.rank, round).count());
}

// Each peer's share of this rank's part comes, and this rank's share of each peer's part goes.
void DirectExchange::post_parts(int64_t round) {
  auto& receives = receives_[round % 2];
  receives.clear();
  receives.resize(static_cast<size_t>(peers_.size));
  for (int step = 1; step < peers_.size; ++step) {
    const int from = (peers_.rank + peers_.size - step) % peers_.size;  // not all to rank 0 at first
    if (range(peers_.rank, round).count() > 0) {
      at::Tensor target = staging(from, round);
      receives[static_cast<size_t>(from)] = peers_.recv(target, from);
    }
    const int to = (peers_.rank + step) % peers_.size;
    if (range(to, round).count() > 0) sends_.push_back(peers_.send(piece(to, round), to));
  }
}

void DirectExchange::sum_part(int64_t round, Reduce op, float* lost) {
  const Part part = range(peers_.rank, round);
  if (part.count() == 0) return;
  const at::Tensor own = piece(peers_.rank, round);
  std::vector<const void*> sources;
  for (int rank = 0; rank < peers_.size; ++rank) {
    if (rank != peers_.rank) peers_.await(*receives_[round % 2][static_cast<size_t>(rank)], rank);
    sources.push_back(rank == peers_.rank ? own.data_ptr() : staging(rank, round).data_ptr());
  }
  combine(sources, own.data_ptr(), part.count(), flat_.scalar_type(), op, lost == nullptr ? nullptr : lost + part.begin);
}

// Also without a sum: this rank's part goes to all, and theirs come.
void DirectExchange::post_sums(int64_t round) {
  for (int step = 1; step < peers_.size; ++step) {
    const int from = (peers_.rank + peers_.size - step) % peers_.size;
    if (range(from, round).count() > 0) {
      at::Tensor target = piece(from, round);
      sums_.emplace_back(peers_.recv(target, from), from);
    }
    const int to = (peers_.rank + step) % peers_.size;
    if (range(peers_.rank, round).count() > 0) sends_.push_back(peers_.send(piece(peers_.rank, round), to));
  }
}

void exchange_small(const Peers& peers, const at::Tensor& tensor, Reduce op) {
  if (peers.size <= kArity) return exchange_whole(peers, tensor, op);
  std::vector<int> subtree;
  add_subtree(peers.rank, peers.size, subtree);
  const at::Tensor gathered = at::empty({static_cast<int64_t>(subtree.size()), tensor.numel()}, tensor.options());
  gathered[0].copy_(tensor);
  int64_t place = 1;
  std::vector<std::pair<WorkPtr, int>> receives;
  for (const int child : children_of(peers.rank, peers.size)) {
    std::vector<int> theirs;
    add_subtree(child, peers.size, theirs);
    at::Tensor target = gathered.narrow(0, place, static_cast<int64_t>(theirs.size()));
    receives.emplace_back(peers.recv(target, child), child);
    place += static_cast<int64_t>(theirs.size());
  }
  for (const auto& [work, from] : receives) peers.await(*work, from);
  if (peers.rank == 0) {
    std::vector<const void*> sources(subtree.size());
    for (size_t i = 0; i < subtree.size(); ++i) sources[static_cast<size_t>(subtree[i])] = gathered[static_cast<int64_t>(i)].data_ptr();
    combine(sources, tensor.data_ptr(), tensor.numel(), tensor.scalar_type(), op);
  } else {
    peers.await(*peers.send(gathered, parent_of(peers.rank)), -1);
  }
  exchange_broadcast(peers, tensor, 0);
}

void exchange_broadcast(const Peers& peers, const at::Tensor& tensor, int root) {
  const int node = (peers.rank - root + peers.size) % peers.size;
  const auto rank_at = [&](int other) { return (other + root) % peers.size; };
  if (node > 0) {
    at::Tensor target = tensor;
    const int parent = rank_at(parent_of(node));
    peers.await(*peers.recv(target, parent), parent);
  }
  std::vector<WorkPtr> sends;
  for (const int child : children_of(node, peers.size)) sends.push_back(peers.send(tensor, rank_at(child)));
  for (const WorkPtr& send : sends) peers.await(*send, -1);
}

void exchange_rounded(const Peers& peers, const at::Tensor& flat, const at::Tensor& residual, at::Tensor& scratch) {
  const at::Tensor rounded = at::empty(flat.sizes(), at::kBFloat16);
  round_with_residual(flat, residual, rounded);
  DirectExchange(peers, rounded, parts_of(even_parts(flat.numel(), peers.size)), scratch).reduce(Reduce::kSum, true, residual.data_ptr<float>());
  flat.copy_(rounded);
}

}  // namespace penstock::comm
