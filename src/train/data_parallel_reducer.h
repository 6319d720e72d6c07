#pragma once
// Sums the gradients of the replicas while the backward pass still runs.
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "model/layer.h"
#include "plan/bucket_plan.h"

namespace penstock::train {

// When the reduction of a bucket was under way; its end is the first moment at which it was seen to be over.
struct ReductionRecord {
  int bucket = 0;
  int64_t bytes = 0;
  int64_t start_us = 0;
  int64_t end_us = 0;
};

// Gradients live in flat buckets: every parameter's grad() is a view of its bucket, so nothing is copied to reduce. A hook on each
// parameter's gradient accumulator counts what is ready; a bucket whose last gradient has come is reduced at once, bucket i always
// after bucket i − 1, so that every replica reduces in the same order.
//
// Accumulation: reductions happen between arm() and finish() only; micro-batches before arm() just add up.
// Unused parameters: a bucket that waits for a gradient that never comes is reduced by finish().
// Threads:  one thread for all methods; hooks run on it too (LibTorch runs a CPU backward pass on its caller's thread).
// Lifetime: the parameters outlive it, and keep grad() as set here (zero by begin_step(), never by resetting it).
class DataParallelReducer {
 public:
  // `replicas` may be null: gradients are then only collected.
  DataParallelReducer(std::vector<model::Parameter>& parameters, comm::Communicator* replicas, const plan::BucketLimits& limits);
  ~DataParallelReducer();
  DataParallelReducer(const DataParallelReducer&) = delete;
  DataParallelReducer& operator=(const DataParallelReducer&) = delete;

  // Zeroes the gradients. REQUIRES: no reduction under way.
  void begin_step();
  // The next backward pass completes the gradients.
  void arm();
  // Blocks until all buckets are reduced. Throws the communicator's Error.
  [[nodiscard]] std::vector<ReductionRecord> finish(Deadline deadline);

  [[nodiscard]] int num_buckets() const { return static_cast<int>(buckets_.size()); }

 private:
  struct Bucket;
  void on_gradient(int bucket);
  void launch_ready(bool force);
  void note_finished();

  comm::Communicator* replicas_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::vector<std::shared_ptr<void>> accumulators_;  // the tensors hold their gradient accumulators weakly
  bool armed_ = false;
  size_t launched_ = 0;
};

}  // namespace penstock::train
