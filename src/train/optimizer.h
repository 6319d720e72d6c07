#pragma once
// AdamW on the parameters of this rank's stages.
#include <cstdint>
#include <vector>

#include "config/train_config.h"
#include "model/layer.h"

namespace penstock::train {

// Weights and moments in float32. Every replica holds all of its stage's state and takes the same step.
// Threads: one. Lifetime: the parameters outlive it.
class Optimizer {
 public:
  Optimizer(std::vector<model::Parameter>& parameters, const config::OptimizerConfig& config);

  // Σ g² over the parameters' gradients, in their order; parameters in `except` (by name) do not count.
  [[nodiscard]] double gradient_square_sum(const std::vector<std::string>& except) const;

  // One update with the gradients times `gradient_scale`; `step` counts from 1.
  void step(int64_t step, double learning_rate, double gradient_scale);

  // Moments of parameter i, shaped as its value; for checkpoints.
  [[nodiscard]] at::Tensor& first_moment(size_t i) { return first_[i]; }
  [[nodiscard]] at::Tensor& second_moment(size_t i) { return second_[i]; }

 private:
  std::vector<model::Parameter>& parameters_;
  const config::OptimizerConfig config_;
  std::vector<at::Tensor> first_, second_;
};

// The factor that brings a gradient of this norm to at most `clip_norm`; 1 when it is within, or clip_norm is 0.
[[nodiscard]] double clip_factor(double norm, double clip_norm);

}  // namespace penstock::train
