#include "train/data_loader.h"

#include <algorithm>

#include "base/error.h"
#include "data/permutation.h"

namespace penstock::train {
namespace {

// A micro-batch whose rows are filled one by one.
class RowBatch {
 public:
  RowBatch(const data::Rows& rows, int64_t size) : rows_(rows), inputs_(at::empty({size, rows.length()}, at::kLong)), targets_(at::empty_like(inputs_)) {
    if (rows.packing() != data::Packing::kStream) starts_ = at::empty({size, rows.length()}, at::kInt);
  }
  void fill(int64_t b, int64_t row, int64_t shift) {
    const int64_t length = rows_.length();
    const auto n = static_cast<size_t>(length);
    rows_.read(row, shift, {{inputs_.data_ptr<int64_t>() + b * length, n},
                            {targets_.data_ptr<int64_t>() + b * length, n},
                            starts_.defined() ? std::span(starts_.data_ptr<int32_t>() + b * length, n) : std::span<int32_t>()});
  }
  [[nodiscard]] pipeline::Microbatch take() const { return {starts_.defined() ? model::Tensors{inputs_, starts_} : model::Tensors{inputs_}, {targets_}}; }

 private:
  const data::Rows& rows_;
  at::Tensor inputs_, targets_, starts_;
};

}  // namespace

DataLoader::DataLoader(const data::Rows& rows, const BatchShape& shape, uint64_t seed) : rows_(rows), shape_(shape), seed_(seed) {
  PENSTOCK_CHECK(rows.full() >= 1 && rows.length() == shape.sequence_length, "{} rows of {} tokens, need rows of {}", rows.full(), rows.length(),
                 shape.sequence_length);
  // Windows are shifted by an offset each epoch, which costs the last one; a stream of one window has none to spare.
  per_epoch_ = rows.packing() == data::Packing::kWhole ? rows.full() : std::max<int64_t>(1, rows.full() - 1);
}

std::vector<pipeline::Microbatch> DataLoader::step(int64_t step, int replica) const {
  const int64_t per_replica = int64_t{1} * shape_.microbatches * shape_.microbatch_size;
  int64_t sequence = (step * shape_.replicas + replica) * per_replica;
  std::vector<pipeline::Microbatch> out;
  for (int m = 0; m < shape_.microbatches; ++m) {
    RowBatch batch(rows_, shape_.microbatch_size);
    for (int b = 0; b < shape_.microbatch_size; ++b, ++sequence) {
      const uint64_t key = data::mixed(seed_ * 0x2545F4914F6CDD1Dull + static_cast<uint64_t>(sequence / per_epoch_));
      const data::Permutation order(static_cast<uint64_t>(per_epoch_), key);
      const int64_t row = static_cast<int64_t>(order(static_cast<uint64_t>(sequence % per_epoch_)));
      const int64_t shift = per_epoch_ < rows_.full() ? static_cast<int64_t>(data::mixed(key) % static_cast<uint64_t>(shape_.sequence_length)) : 0;
      batch.fill(b, row, shift);
    }
    out.push_back(batch.take());
  }
  return out;
}

int64_t validation_batches(const data::Rows& rows, const BatchShape& shape) {
  const int64_t per_round = int64_t{1} * shape.replicas * shape.microbatch_size;
  return (rows.count() + per_round - 1) / per_round;
}

pipeline::Microbatch validation_batch(const data::Rows& rows, const BatchShape& shape, int64_t batch, int replica) {
  RowBatch out(rows, shape.microbatch_size);
  for (int b = 0; b < shape.microbatch_size; ++b) out.fill(b, (batch * shape.replicas + replica) * shape.microbatch_size + b, 0);
  return out.take();
}

int64_t count_targets(const std::vector<pipeline::Microbatch>& microbatches) {
  int64_t count = 0;
  for (const auto& microbatch : microbatches) count += microbatch.targets.at(0).ge(0).sum().item<int64_t>();
  return count;
}

}  // namespace penstock::train
