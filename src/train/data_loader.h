#pragma once
// Which tokens are trained on when: a function of (seed, step, replica) alone.
#include <cstdint>
#include <vector>

#include "data/rows.h"
#include "pipeline/executor.h"

namespace penstock::train {

struct BatchShape {
  int replicas = 1;
  int microbatches = 1;     // per replica and step
  int microbatch_size = 1;  // sequences, B
  int sequence_length = 1;  // T

  [[nodiscard]] int64_t tokens_per_step() const {
    return int64_t{1} * replicas * microbatches * microbatch_size * sequence_length;
  }
};

// Visits each row once an epoch, in an order drawn from (seed, epoch); where rows are windows of a stream, they also begin at another token
// each epoch, which costs the last one.
//
// The s-th sequence of step n is the same whatever the layout: replica r takes the r-th run of sequences, and its micro-batches cut that
// run in order. So R replicas of m micro-batches see what one process with R·m micro-batches sees.
//
// Threads: const and shared freely.
class DataLoader {
 public:
  // REQUIRES: rows.full() >= 1; `rows` outlives the loader.
  DataLoader(const data::Rows& rows, const BatchShape& shape, uint64_t seed);

  // Micro-batches of one replica: inputs {ids [B, T] int64}, targets {ids [B, T] int64}; unless documents see each other also, as a second input,
  // where each position's document begins in its row, [B, T] int32. Throws Error kDataLoss naming the file when data on disk has changed.
  [[nodiscard]] std::vector<pipeline::Microbatch> step(int64_t step, int replica) const;

  [[nodiscard]] int64_t rows_per_epoch() const { return per_epoch_; }

 private:
  const data::Rows& rows_;
  const BatchShape shape_;
  const uint64_t seed_;
  int64_t per_epoch_ = 0;
};

// Rows one after another from the start, each once over all replicas. Batch b of replica r holds rows (b·R + r)·B …; past the end all targets
// are −1.
[[nodiscard]] pipeline::Microbatch validation_batch(const data::Rows& rows, const BatchShape& shape, int64_t batch, int replica);
[[nodiscard]] int64_t validation_batches(const data::Rows& rows, const BatchShape& shape);  // per replica, to see all

// How many targets of these are >= 0.
[[nodiscard]] int64_t count_targets(const std::vector<pipeline::Microbatch>& microbatches);

}  // namespace penstock::train
