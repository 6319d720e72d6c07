#include "kernels/device_optimizers.h"

#include <cmath>

namespace penstock::kernels {
namespace {

using Member = at::Tensor OptimizedTensors::*;

std::vector<at::Tensor> all(const std::vector<OptimizedTensors>& parameters, Member member) {
  std::vector<at::Tensor> tensors;
  for (const OptimizedTensors& p : parameters) tensors.push_back(p.*member);
  return tensors;
}

// Of bias in a moment that began at zero.
double correction(float beta, int64_t step) { return 1.0 / (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(step))); }

struct Moments {
  std::vector<at::Tensor> m, v;
};

// m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², g with its scale.
Moments update_moments(const std::vector<OptimizedTensors>& parameters, const AdamStep& s) {
  Moments moments{all(parameters, &OptimizedTensors::m), all(parameters, &OptimizedTensors::v)};
  const std::vector<at::Tensor> gradients = all(parameters, &OptimizedTensors::gradients);
  const double scale = s.gradient_scale;
  at::_foreach_mul_(moments.m, s.beta1);
  at::_foreach_add_(moments.m, gradients, (1.0 - s.beta1) * scale);
  at::_foreach_mul_(moments.v, s.beta2);
  at::_foreach_addcmul_(moments.v, gradients, gradients, (1.0 - s.beta2) * scale * scale);
  return moments;
}

// √v̂ + eps.
std::vector<at::Tensor> denominators(const Moments& moments, const AdamStep& s) {
  std::vector<at::Tensor> roots = at::_foreach_sqrt(moments.v);
  at::_foreach_mul_(roots, std::sqrt(correction(s.beta2, s.step)));
  at::_foreach_add_(roots, s.eps);
  return roots;
}

}  // namespace

void adamw(const std::vector<OptimizedTensors>& parameters, const AdamStep& s) {
  if (parameters.empty()) return;
  const Moments moments = update_moments(parameters, s);
  const std::vector<at::Tensor> weights = all(parameters, &OptimizedTensors::weights);
  if (s.weight_decay != 0) at::_foreach_mul_(weights, 1.0 - static_cast<double>(s.lr) * s.weight_decay);
  at::_foreach_addcdiv_(weights, moments.m, denominators(moments, s), -static_cast<double>(s.lr) * correction(s.beta1, s.step));
}

void momentum_sgd(const std::vector<OptimizedTensors>& parameters, const MomentumStep& s) {
  if (parameters.empty()) return;
  const std::vector<at::Tensor> weights = all(parameters, &OptimizedTensors::weights), m = all(parameters, &OptimizedTensors::m);
  at::_foreach_mul_(m, s.momentum);
  at::_foreach_add_(m, all(parameters, &OptimizedTensors::gradients), static_cast<double>(s.lr_scale) * s.gradient_scale);
  if (s.weight_decay != 0) at::_foreach_add_(m, weights, static_cast<double>(s.lr_scale) * s.weight_decay);
  at::_foreach_add_(weights, m, -static_cast<double>(s.lr));
}

at::Tensor lamb_direction(const OptimizedTensors& parameter, const AdamStep& s) {
  const Moments moments = update_moments({parameter}, s);
  return (parameter.m * correction(s.beta1, s.step)).div_(denominators(moments, s)[0]).add_(parameter.weights, s.weight_decay);
}

std::vector<double> sums_of_squares(const std::vector<at::Tensor>& tensors) {
  if (tensors.empty()) return {};
  const at::Tensor norms = at::stack(at::_foreach_norm(tensors, 2)).to(at::kCPU, at::kDouble);
  std::vector<double> squares;
  for (int64_t i = 0; i < norms.numel(); ++i) {
    double norm = norms.data_ptr<double>()[i];
    if (!std::isfinite(norm)) norm = tensors[static_cast<size_t>(i)].to(at::kDouble).norm().item<double>();  // squares of finite values may be beyond float32
    squares.push_back(norm * norm);
  }
  return squares;
}

}  // namespace penstock::kernels
