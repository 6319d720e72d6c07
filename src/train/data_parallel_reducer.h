#pragma once
// Sums the gradients of the replicas while the backward pass still runs.
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
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

// Gradients live in flat buckets: every parameter's grad() is a view of its bucket, so nothing is copied to reduce. A bucket whose last gradient
// has come is reduced at once, bucket i always after bucket i − 1, so that every replica reduces in the same order. Buckets belong to one stage
// each, in the order in which the schedule completes the stages: a stage reduces on its own last backward micro-batch.
//
// Accumulation: a stage's buckets are reduced between its arm() and finish() only; micro-batches before arm() just add up.
// Unused parameters: a bucket that waits for a gradient that never comes is reduced by finish().
// Threads:  one thread for all methods; hooks run on it too (LibTorch runs a CPU backward pass on its caller's thread).
// Lifetime: the parameters outlive it, and keep grad() as set here (zero by begin_step(), never by resetting it).
class DataParallelReducer {
 public:
  // `stages`: the parameters that each stage completes, stages in the order of completion, parameters in forward order; each once.
  // `replicas` may be null: gradients are then only collected. Collective over them: they share the memory of the buckets where they can.
  DataParallelReducer(const std::vector<std::vector<at::Tensor>>& stages, comm::Communicator* replicas, const plan::BucketLimits& limits, Deadline deadline);
  ~DataParallelReducer();
  DataParallelReducer(const DataParallelReducer&) = delete;
  DataParallelReducer& operator=(const DataParallelReducer&) = delete;

  // Zeroes the gradients. REQUIRES: no reduction under way.
  void begin_step();
  // The next additions complete the gradients of a stage (its position in `stages`). `pending`: the parameters that complete() will tell; all
  // others are complete already. Null: the next backward pass completes them all, and autograd's hooks tell.
  void arm(size_t stage, const std::vector<at::Tensor>* pending);
  void complete(const at::Tensor& parameter);
  // Blocks until all buckets are reduced. Throws the communicator's Error. REQUIRES: every stage with parameters is armed.
  [[nodiscard]] std::vector<ReductionRecord> finish(Deadline deadline);

  [[nodiscard]] int num_buckets() const { return static_cast<int>(buckets_.size()); }

 private:
  struct Bucket;
  int64_t add_stage(const std::vector<at::Tensor>& parameters, const plan::BucketPlan& plan, const at::Tensor& memory, int64_t offset);
  void watch(const at::Tensor& parameter, size_t bucket);
  void on_hook(size_t bucket);
  void gradient_came(Bucket& bucket);
  void launch_ready(bool force);
  void note_finished();

  comm::Communicator* replicas_;
  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::vector<std::pair<size_t, size_t>> stage_buckets_;    // by stage: [first, last) bucket
  std::map<const void*, size_t> bucket_of_;                 // by parameter
  std::vector<std::shared_ptr<void>> accumulators_;  // the tensors hold their gradient accumulators weakly
  size_t launched_ = 0;
};

}  // namespace penstock::train
