#pragma once
// Optimizer state of which each replica keeps its part only (ZeRO stage 1).
#include <vector>

#include "train/data_parallel_reducer.h"
#include "train/parameter_shards.h"

namespace penstock::train {

// Values and gradients are whole on every replica. The reducer gives each replica the sums of its part of each bucket (Rajbhandari et al. 2020); the values lie
// in one flat array as the gradients do in the buckets, so that a replica updates the same part of them, and one gather for each bucket brings the others the rest:
// together the traffic of an all-reduce. Every bucket has parts of all replicas, so a reduction never goes to one of them alone.
//
// Bytes at rest, for N replicas and P parameters, with AdamW: 8·P + 8·P/N instead of 16·P.
class BucketShards final : public ParameterShards {
 public:
  // `reducer` has the gradients of all parameters, with Sums::kOwnPart or rounded; it outlives this. Moves the values.
  BucketShards(std::vector<model::Parameter>& parameters, comm::Communicator& replicas, const DataParallelReducer& reducer);

  [[nodiscard]] Range range(size_t i, int replica) const override;
  [[nodiscard]] at::Tensor values(size_t i) const override;
  [[nodiscard]] at::Tensor gradients(size_t i) const override;
  [[nodiscard]] at::Tensor summed_gradient(size_t i) const override { return gradients(i); }
  [[nodiscard]] bool gradients_are_whole() const override { return false; }
  void share_updated(Deadline deadline) override;

  // After the reducer has changed places: moves the values with their contents. What depends on own() has to follow (Optimizer::cut_anew).
  void follow();

 private:
  const DataParallelReducer& reducer_;
  at::Tensor flat_;  // the values, in the places of the gradients
};

}  // namespace penstock::train
