#pragma once
// Which tokens are trained on when: a function of (seed, step, replica) alone.
#include <cstdint>
#include <vector>

#include "pipeline/executor.h"
#include "train/text_corpus.h"

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

// Cuts the stream into windows of T + 1 tokens (the last target of one is the first input of the next), and visits each window once an
// epoch, in an order and from a start drawn from (seed, epoch).
//
// The s-th sequence of step n is the same whatever the layout: replica r takes the r-th run of sequences, and its micro-batches cut that
// run in order. So R replicas of m micro-batches see what one process with R·m micro-batches sees.
//
// Threads: one thread (an epoch's order is kept).
class DataLoader {
 public:
  // REQUIRES: at least T + 1 tokens; the stream outlives the loader.
  DataLoader(const TokenStream& stream, const BatchShape& shape, uint64_t seed);

  // Micro-batches of one replica: inputs {ids [B, T] int64}, targets {ids [B, T] int64}.
  [[nodiscard]] std::vector<pipeline::Microbatch> step(int64_t step, int replica);

  [[nodiscard]] int64_t windows() const { return windows_; }

 private:
  int64_t window_start(int64_t sequence);

  const TokenStream& stream_;
  const BatchShape shape_;
  const uint64_t seed_;
  int64_t windows_ = 0;
  int64_t epoch_ = -1;
  int64_t epoch_offset_ = 0;
  std::vector<uint32_t> order_;  // of the current epoch
};

// Windows one after another from the start of a stream, each token predicted once; the last one may be cut short by targets of −1.
// Batch b of replica r holds windows (b·R + r)·B … ; past the end all targets are −1.
[[nodiscard]] pipeline::Microbatch validation_batch(const TokenStream& stream, const BatchShape& shape, int64_t batch, int replica);
[[nodiscard]] int64_t validation_batches(const TokenStream& stream, const BatchShape& shape);  // per replica, to see the whole stream

}  // namespace penstock::train
