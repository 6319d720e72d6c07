#pragma once
// AdamW, SGD with momentum, LAMB and LARS on the parameters of this rank's stages.
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "config/train_config.h"
#include "kernels/device_optimizers.h"
#include "kernels/optimizers.h"
#include "model/layer.h"
#include "train/parameter_shards.h"

namespace penstock::train {

// Weights and moments in float32. A replica keeps the moments of what it updates: of everything, or of its shards.
//
// LAMB and LARS scale each parameter's step by its norm; parameters without weight decay (norms, biases) take plain steps, as is usual. Their
// norms are summed over the shards in float64, so sharding changes results by rounding only; AdamW's and SGD's by no bit.
//
// Devices:  where the parameters are; results of a GPU differ from the CPU's by rounding.
// Threads:  one.
// Lifetime: the parameters and their shards outlive it.
class Optimizer {
 public:
  Optimizer(std::vector<model::Parameter>& parameters, const config::OptimizerConfig& config, ParameterShards& shards);

  // Σ g² over the summed gradients that are here, in the parameters' order; those in `except` (by name) do not count.
  [[nodiscard]] double gradient_square_sum(const std::vector<std::string>& except) const;

  // One update with the gradients times `gradient_scale`; `step` counts from 1. Collective over the replicas that share the shards.
  void step(int64_t step, double learning_rate, double gradient_scale, Deadline deadline);

  // What it remembers of each parameter, as name endings in checkpoints: ".m", and ".v" where there is a second moment.
  [[nodiscard]] std::span<const char* const> moment_names() const;
  // Those of parameter i, shaped as its value. The first is collective over the replicas that share the shards.
  [[nodiscard]] std::vector<at::Tensor> moments(size_t i, Deadline deadline) const;
  void set_moments(size_t i, const std::vector<at::Tensor>& moments);

  // Calls `change`, which cuts parameters in another way, and passes moments on to the replicas that then update those elements, one parameter at a time.
  // Collective over the replicas.
  void cut_anew(const std::function<void()>& change, Deadline deadline);

  // Of moments on this rank.
  [[nodiscard]] int64_t state_bytes() const;

 private:
  // The elements of a parameter that this replica updates; all of them when nothing is sharded.
  struct Part {
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
  [[nodiscard]] Part make_part(size_t i) const;
  [[nodiscard]] kernels::AdamStep adam_step(const Part& part, int64_t step, double learning_rate, double gradient_scale) const;
  void adam(int64_t step, double learning_rate, double gradient_scale, Deadline deadline);
  void momentum_sgd(double learning_rate, double gradient_scale, Deadline deadline);
  [[nodiscard]] kernels::MomentumStep momentum_step(const Part& part, double learning_rate, double gradient_scale, const kernels::SquareSums& sums) const;
  [[nodiscard]] bool on_cpu() const;
  void step_on_device(int64_t step, double learning_rate, double gradient_scale, Deadline deadline);
  [[nodiscard]] kernels::OptimizedTensors tensors(size_t i) const;
  [[nodiscard]] std::vector<kernels::SquareSums> over_shards(std::vector<kernels::SquareSums> sums, Deadline deadline) const;

  std::vector<model::Parameter>& parameters_;
  const config::OptimizerConfig config_;
  ParameterShards& shards_;
  std::vector<Part> parts_;
};

// The factor that brings a gradient of this norm to at most `clip_norm`; 1 when it is within, or clip_norm is 0.
[[nodiscard]] double clip_factor(double norm, double clip_norm);

}  // namespace penstock::train
