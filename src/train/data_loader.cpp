#include "train/data_loader.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"

namespace penstock::train {
namespace {

// SplitMix64 (Steele, Lea and Flood 2014): the same numbers from every compiler and library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  // In [0, n); the bias of the modulo is below n / 2^64.
  uint64_t below(uint64_t n) { return next() % n; }

 private:
  uint64_t state_;
};

void copy_row(const TokenStream& stream, int64_t start, int64_t length, int64_t* inputs, int64_t* targets) {
  for (int64_t t = 0; t < length; ++t) {
    inputs[t] = stream.ids[static_cast<size_t>(start + t)];
    targets[t] = stream.ids[static_cast<size_t>(start + t + 1)];
  }
}

}  // namespace

DataLoader::DataLoader(const TokenStream& stream, const BatchShape& shape, uint64_t seed) : stream_(stream), shape_(shape), seed_(seed) {
  windows_ = (static_cast<int64_t>(stream.ids.size()) - 1) / shape.sequence_length;
  PENSTOCK_CHECK(windows_ >= 1, "{} tokens of text, need more than {}", stream.ids.size(), shape.sequence_length);
}

int64_t DataLoader::window_start(int64_t sequence) {
  // The start is shifted by an offset each epoch, which costs the last window; a stream of one window has none to spare.
  const int64_t per_epoch = std::max<int64_t>(1, windows_ - 1);
  const int64_t epoch = sequence / per_epoch;
  if (epoch != epoch_) {
    Random random(seed_ * 0x2545F4914F6CDD1Dull + static_cast<uint64_t>(epoch));
    epoch_ = epoch;
    epoch_offset_ = windows_ > 1 ? static_cast<int64_t>(random.below(static_cast<uint64_t>(shape_.sequence_length))) : 0;
    order_.resize(static_cast<size_t>(per_epoch));
    std::iota(order_.begin(), order_.end(), 0u);
    for (size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random.below(i)]);  // Fisher-Yates
  }
  return epoch_offset_ + static_cast<int64_t>(order_[static_cast<size_t>(sequence % per_epoch)]) * shape_.sequence_length;
}

std::vector<pipeline::Microbatch> DataLoader::step(int64_t step, int replica) {
  const int64_t per_replica = int64_t{1} * shape_.microbatches * shape_.microbatch_size;
  int64_t sequence = (step * shape_.replicas + replica) * per_replica;
  std::vector<pipeline::Microbatch> out;
  for (int m = 0; m < shape_.microbatches; ++m) {
    at::Tensor inputs = at::empty({shape_.microbatch_size, shape_.sequence_length}, at::kLong), targets = at::empty_like(inputs);
    for (int b = 0; b < shape_.microbatch_size; ++b, ++sequence) {
      copy_row(stream_, window_start(sequence), shape_.sequence_length, inputs[b].data_ptr<int64_t>(), targets[b].data_ptr<int64_t>());
    }
    out.push_back({{inputs}, {targets}});
  }
  return out;
}

int64_t validation_batches(const TokenStream& stream, const BatchShape& shape) {
  const int64_t windows = (static_cast<int64_t>(stream.ids.size()) - 1 + shape.sequence_length - 1) / shape.sequence_length;
  const int64_t per_round = int64_t{1} * shape.replicas * shape.microbatch_size;
  return (windows + per_round - 1) / per_round;
}

pipeline::Microbatch validation_batch(const TokenStream& stream, const BatchShape& shape, int64_t batch, int replica) {
  at::Tensor inputs = at::zeros({shape.microbatch_size, shape.sequence_length}, at::kLong), targets = at::full_like(inputs, -1);
  const int64_t predicted = static_cast<int64_t>(stream.ids.size()) - 1;
  for (int b = 0; b < shape.microbatch_size; ++b) {
    const int64_t start = ((batch * shape.replicas + replica) * shape.microbatch_size + b) * shape.sequence_length;
    const int64_t length = std::clamp<int64_t>(predicted - start, 0, shape.sequence_length);
    copy_row(stream, start, length, inputs[b].data_ptr<int64_t>(), targets[b].data_ptr<int64_t>());
  }
  return {{inputs}, {targets}};
}

}  // namespace penstock::train
