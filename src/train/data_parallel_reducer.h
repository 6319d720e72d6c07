#pragma once
// Sums the gradients of the replicas while the backward pass still runs.
#include <cstdint>
#include <map>
#include <memory>
#include <span>
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
// Order: parameters are taken to become ready in the reverse of their forward order. The first step, which overlaps as all do, sees in which order
// they really come; from the second on every replica has its buckets in the order that the first replica saw.
// Accumulation: a stage's buckets are reduced between its arm() and finish() only; micro-batches before arm() just add up.
// Unused parameters: a bucket that waits for a gradient that never comes is reduced by finish(), with zeros in its place.
// Parts: each bucket is cut into a part for each replica. With Sums::kOwnPart a replica gets the sums of its part only, in half the traffic.
// Threads:  one thread for all methods. Hooks run on it, too (LibTorch runs a CPU backward pass on its caller's thread), or on autograd's thread of a GPU while it waits for the
//           backward pass. They only post reductions: the communicator's own threads carry them out.
// Devices:  gradients lie where the parameters do, which are all on one device.
// Lifetime: the parameters outlive it, and keep grad() as set here (zero by begin_step(), never by resetting it).
class DataParallelReducer {
 public:
  enum class Sums {
    kAll,      // every replica gets all (all-reduce)
    kOwnPart,  // each gets its part of each bucket (reduce-scatter); the rest of the gradients is scratch then
  };
  // `stages`: the parameters that each stage completes, stages in the order of completion, parameters in forward order; each once.
  // `replicas` may be null: gradients are then only collected. Collective over them: they share the memory of the buckets where they can.
  // `alone`: parameters that get buckets of their own, so that they are cut alike wherever else they are.
  DataParallelReducer(const std::vector<std::vector<at::Tensor>>& stages, comm::Communicator* replicas, const plan::BucketLimits& limits, Deadline deadline,
                      Sums sums = Sums::kAll, const std::vector<at::Tensor>& alone = {});
  ~DataParallelReducer();
  DataParallelReducer(const DataParallelReducer&) = delete;
  DataParallelReducer& operator=(const DataParallelReducer&) = delete;

  // From now on gradients travel as bfloat16 (Communicator::all_reduce_rounded), and every replica gets all sums. What rounding takes is remembered here,
  // 4 bytes a gradient.
  void round_to_bf16();
  [[nodiscard]] bool rounds() const { return rounds_; }
  // What is remembered of a parameter: float32, flat, where it lives, on the CPU. REQUIRES: rounds().
  [[nodiscard]] at::Tensor residual(const at::Tensor& parameter) const;
  // Of all that is remembered; what is not finite, of gradients that were not, is forgotten.
  void scale_residuals(double factor);
  // Zeroes the gradients. REQUIRES: no reduction under way.
  void begin_step();
  // The next additions complete the gradients of a stage (its position in `stages`). `pending`: the parameters that complete() will tell; all
  // others are complete already. Null: the next backward pass completes them all, and autograd's hooks tell.
  void arm(size_t stage, const std::vector<at::Tensor>* pending);
  // Also told of micro-batches before arm().
  void complete(const at::Tensor& parameter);
  // Blocks until all buckets are reduced. Throws the communicator's Error. REQUIRES: every stage with parameters is armed.
  [[nodiscard]] std::vector<ReductionRecord> finish(Deadline deadline);

  [[nodiscard]] int num_buckets() const { return static_cast<int>(buckets_.size()); }
  // Whether a parameter got a gradient since begin_step().
  [[nodiscard]] bool has_gradient(const at::Tensor& parameter) const;
  // The parameters of a stage, as positions in forward order, in the order in which their gradients are taken to become ready.
  [[nodiscard]] const std::vector<int>& order(size_t stage) const { return stages_.at(stage).order; }
  // Of all stages, one after the other ...
  [[nodiscard]] std::vector<int64_t> orders() const;
  // ... and back: buckets are laid out in these orders at once, instead of after a first step. The same on every replica; between steps. False, and
  // nothing changes, when they are not orders of these parameters.
  [[nodiscard]] bool set_orders(std::span<const int64_t> orders);
  // The next begin_step() lays the buckets out anew: places change.
  [[nodiscard]] bool changes_places() const { return order_ == Order::kChanged; }

  // Where gradients lie, in elements of the memory of all buckets, [0, num_elements()).
  struct Place {
    int64_t bucket = 0;              // where the parameter's bucket begins
    int64_t begin = 0;               // where the parameter does, in the bucket
    std::span<const int64_t> parts;  // of the bucket, from 0: replica r has [parts[r], parts[r + 1])
  };
  [[nodiscard]] Place place(const at::Tensor& parameter) const;
  [[nodiscard]] Place place_of_bucket(int bucket) const;
  [[nodiscard]] int64_t num_elements() const { return memory_.numel() / 4; }

 private:
  struct Bucket;
  struct Parameter {
    at::Tensor value;
    size_t stage = 0;
    int position = 0;  // within the stage, in forward order
    bool alone = false;
    size_t bucket = 0;
    int64_t begin = 0;  // elements, in the bucket
    bool has_gradient = false;
  };
  struct Stage {
    size_t first_parameter = 0;  // those of a stage lie together, in forward order
    std::vector<int> order, observed;
    size_t first_bucket = 0, last_bucket = 0;  // [first, last)
  };
  void watch(size_t parameter);
  [[nodiscard]] plan::BucketPlan plan_of(const Stage& stage) const;
  void lay_out();
  void lay_out(Stage& stage, int64_t& offset);
  void agree_on_order(Deadline deadline);
  void move_residuals(const std::vector<at::Tensor>& before);
  [[nodiscard]] Parameter* find(const at::Tensor& parameter);
  [[nodiscard]] const Parameter& known(const at::Tensor& parameter) const;
  void gradient_came(const Parameter& parameter);
  void launch_ready(bool force);
  [[nodiscard]] comm::WorkPtr reduce(Bucket& bucket);
  void note_finished();

  comm::Communicator* replicas_;
  const plan::BucketLimits limits_;
  const Sums sums_;
  at::Tensor memory_;    // uint8: all buckets
  at::Tensor residual_;  // float32, as large, on the CPU, where sums are rounded; undefined while nothing is
  std::vector<Parameter> parameters_;
  std::vector<Stage> stages_;
  std::map<const void*, size_t> index_of_;           // of a parameter
  std::vector<std::shared_ptr<void>> accumulators_;  // the tensors hold their gradient accumulators weakly
  std::vector<std::unique_ptr<Bucket>> buckets_;
  size_t launched_ = 0;
  bool rounds_ = false;
  enum class Order { kObserving, kChanged, kFixed } order_;  // kChanged: to be laid out anew when the step's gradients are not needed any more
};

}  // namespace penstock::train
