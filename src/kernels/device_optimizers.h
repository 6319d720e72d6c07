#pragma once
// The updates of optimizers.h by LibTorch operations, for tensors on any device: many parameters in few launches. The same arithmetic; results differ by rounding.
#include <ATen/core/Tensor.h>

#include <vector>

#include "kernels/optimizers.h"

namespace penstock::kernels {

// Of one parameter: float32 [count] each, on one device, changed in place. `v` is undefined where a rule has no second moment.
struct OptimizedTensors {
  at::Tensor weights, gradients, m, v;
};

// Of all parameters the same step, without a gradient graph.
void adamw(const std::vector<OptimizedTensors>& parameters, const AdamStep& step);
void momentum_sgd(const std::vector<OptimizedTensors>& parameters, const MomentumStep& step);

// Updates the moments; the direction u = m̂ / (√v̂ + eps) + weight_decay · w of LAMB, float32 [count].
[[nodiscard]] at::Tensor lamb_direction(const OptimizedTensors& parameter, const AdamStep& step);

// Σ x² of each, summed in float32 and read at once: waits for the device.
[[nodiscard]] std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors);

}  // namespace penstock::kernels
