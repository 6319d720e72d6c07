#include "train/optimizer.h"

#include <algorithm>

#include "kernels/adamw.h"

namespace penstock::train {

Optimizer::Optimizer(std::vector<model::Parameter>& parameters, const config::OptimizerConfig& config) : parameters_(parameters), config_(config) {
  for (const model::Parameter& p : parameters) {
    first_.push_back(at::zeros(p.value.sizes(), at::kFloat));
    second_.push_back(at::zeros(p.value.sizes(), at::kFloat));
  }
}

double Optimizer::gradient_square_sum(const std::vector<std::string>& except) const {
  double sum = 0;
  for (const model::Parameter& p : parameters_) {
    if (std::find(except.begin(), except.end(), p.name) != except.end()) continue;
    sum += kernels::sum_of_squares(p.value.grad().data_ptr<float>(), p.value.numel());
  }
  return sum;
}

void Optimizer::step(int64_t step, double learning_rate, double gradient_scale) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const model::Parameter& p = parameters_[i];
    kernels::AdamwStep update;
    update.lr = static_cast<float>(learning_rate);
    update.beta1 = static_cast<float>(config_.beta1);
    update.beta2 = static_cast<float>(config_.beta2);
    update.eps = static_cast<float>(config_.eps);
    update.weight_decay = p.decay ? static_cast<float>(config_.weight_decay) : 0.0f;
    update.gradient_scale = static_cast<float>(gradient_scale);
    update.step = step;
    kernels::adamw(p.value.data_ptr<float>(), p.value.grad().data_ptr<float>(), first_[i].data_ptr<float>(), second_[i].data_ptr<float>(),
                   p.value.numel(), update);
  }
}

double clip_factor(double norm, double clip_norm) { return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1; }

}  // namespace penstock::train
