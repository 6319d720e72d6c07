#pragma once
// AdamW, SGD with momentum, LAMB and LARS on the parameters of this rank's stages.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "config/train_config.h"
#include "kernels/optimizers.h"
#include "model/layer.h"

namespace penstock::train {

// Weights and moments in float32. Every replica holds all of its stages' weights and gets the same bits; moments too, or, sharded (ZeRO stage 1,
// Rajbhandari et al. 2020), each replica only those of its part of the weights: it updates that part and sends it to the others.
//
// LAMB and LARS scale each parameter's step by its norm; parameters without weight decay (norms, biases) take plain steps, as is usual. Their
// norms are summed over the shards in float64, so sharding changes results by rounding only; AdamW's and SGD's by no bit.
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

  // What it remembers of each parameter, as name endings in checkpoints: ".m", and ".v" where there is a second moment.
  [[nodiscard]] std::span<const char* const> moment_names() const;
  // Those of parameter i, shaped as its value. The first is collective over `shards`.
  [[nodiscard]] std::vector<at::Tensor> moments(size_t i, Deadline deadline) const;
  void set_moments(size_t i, const std::vector<at::Tensor>& moments);

  // Of moments on this rank.
  [[nodiscard]] int64_t state_bytes() const;

 private:
  // The elements of a parameter that this replica updates; all of them when nothing is sharded.
  struct Part {
    int64_t begin = 0;
    int64_t count = 0;
    std::vector<at::Tensor> moments;  // [count] each
    float weight_decay = 0;
    bool layer_wise = false;
  };
  struct Pointers {
    float *weights, *gradients, *m, *v;
  };
  [[nodiscard]] bool is_adam() const { return config_.name == config::OptimizerName::kAdamw || config_.name == config::OptimizerName::kLamb; }
  [[nodiscard]] Pointers pointers(size_t i) const;
  [[nodiscard]] Part make_part(const model::Parameter& parameter, int64_t offset) const;
  [[nodiscard]] kernels::AdamStep adam_step(const Part& part, int64_t step, double learning_rate, double gradient_scale) const;
  void adam(int64_t step, double learning_rate, double gradient_scale, Deadline deadline);
  void momentum_sgd(double learning_rate, double gradient_scale, Deadline deadline);
  [[nodiscard]] std::vector<kernels::SquareSums> over_shards(std::vector<kernels::SquareSums> sums, Deadline deadline) const;
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
