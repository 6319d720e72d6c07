#pragma once
// AdamW on the parameters of this rank's stages.
#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "config/train_config.h"
#include "model/layer.h"

namespace penstock::train {

// Weights and moments in float32. Every replica holds all of its stages' weights and gets the same bits; moments too, or, sharded (ZeRO stage 1,
// Rajbhandari et al. 2020), each replica only those of its part of the weights: it updates that part and sends it to the others.
//
// Threads:  one.
// Lifetime: the parameters and the group outlive it. Sharding moves the parameters' values into one flat tensor.
class Optimizer {
 public:
  // `shards`: the replicas that share the state; null = whole on every one.
  Optimizer(std::vector<model::Parameter>& parameters, const config::OptimizerConfig& config, comm::Communicator* shards);

  // Σ g² over the parameters' gradients, in their order; parameters in `except` (by name) do not count.
  [[nodiscard]] double gradient_square_sum(const std::vector<std::string>& except) const;

  // One update with the gradients times `gradient_scale`; `step` counts from 1. Collective over `shards`.
  void step(int64_t step, double learning_rate, double gradient_scale, Deadline deadline);

  // Both moments of parameter i, shaped as its value; for checkpoints. Collective over `shards`.
  struct Moments {
    at::Tensor first, second;
  };
  [[nodiscard]] Moments moments(size_t i, Deadline deadline) const;
  void set_moments(size_t i, const Moments& moments);

  // Of moments on this rank.
  [[nodiscard]] int64_t state_bytes() const;

 private:
  // The elements of a parameter that this replica updates; all of them when nothing is sharded.
  struct Part {
    int64_t begin = 0;
    int64_t count = 0;
    at::Tensor first, second;  // [count]
  };
  [[nodiscard]] std::pair<int64_t, int64_t> shard(int replica) const;  // [begin, end) of the flat weights
  void move_values_into_flat();
  void share_updated_weights(Deadline deadline);

  std::vector<model::Parameter>& parameters_;
  const config::OptimizerConfig config_;
  comm::Communicator* const shards_;
  at::Tensor flat_;  // all weights in order, when sharded
  std::vector<Part> parts_;
};

// The factor that brings a gradient of this norm to at most `clip_norm`; 1 when it is within, or clip_norm is 0.
[[nodiscard]] double clip_factor(double norm, double clip_norm);

}  // namespace penstock::train
