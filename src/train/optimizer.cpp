#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <regex>

#include "base/error.h"

namespace penstock::train {
namespace {

// The first group whose expression is found in the name tells; else parameters that shrink get the general value.
double weight_decay_of(const model::Parameter& parameter, const config::OptimizerConfig& config, const std::vector<config::DecayGroup>& groups) {
  for (const config::DecayGroup& group : groups) {
    if (std::regex_search(parameter.name, std::regex(group.pattern, config::kDecayExpression))) return group.weight_decay;
  }
  return parameter.decay ? config.weight_decay : 0;
}

double ratio_or_one(double numerator, double denominator) { return numerator > 0 && denominator > 0 ? numerator / denominator : 1; }

}  // namespace

Optimizer::Optimizer(std::vector<model::Parameter>& parameters, const config::OptimizerConfig& config, ParameterShards& shards)
    : parameters_(parameters), config_(config), shards_(shards) {
  const auto groups = config::parse_decay_groups(config.decay_groups).value();
  for (size_t i = 0; i < parameters.size(); ++i) {
    parts_.push_back(make_part(i));
    parts_.back().weight_decay = static_cast<float>(weight_decay_of(parameters[i], config_, groups));
  }
}

Optimizer::Part Optimizer::make_part(size_t i) const {
  Part part;
  part.count = shards_.own(i).count;
  for (size_t k = 0; k < moment_names().size(); ++k) part.moments.push_back(at::zeros({part.count}, parameters_[i].value.options().requires_grad(false)));
  part.layer_wise = parameters_[i].decay && (config_.name == config::OptimizerName::kLamb || config_.name == config::OptimizerName::kLars);
  return part;
}

std::span<const char* const> Optimizer::moment_names() const {
  static constexpr const char* kNames[] = {".m", ".v"};
  return std::span(kNames).first(is_adam() ? 2 : 1);
}

double Optimizer::gradient_square_sum(const std::vector<std::string>& except) const {
  double sum = 0;
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (std::find(except.begin(), except.end(), parameters_[i].name) != except.end()) continue;
    const at::Tensor gradient = shards_.summed_gradient(i);
    if (gradient.numel() == 0) continue;
    if (gradient.is_cpu()) sum += kernels::sum_of_squares(gradient.data_ptr<float>(), gradient.numel());
    else gradients.push_back(gradient);
  }
  for (const double square : kernels::sums_of_squares(gradients)) sum += square;
  return sum;
}

bool Optimizer::on_cpu() const { return parameters_.empty() || parameters_.front().value.is_cpu(); }

void Optimizer::step(int64_t step, double learning_rate, double gradient_scale, Deadline deadline) {
  const at::NoGradGuard no_grad;
  if (!on_cpu()) {
    step_on_device(step, learning_rate, gradient_scale, deadline);
  } else if (is_adam()) {
    adam(step, learning_rate, gradient_scale, deadline);
  } else {
    momentum_sgd(learning_rate, gradient_scale, deadline);
  }
  shards_.share_updated(deadline);
}

Optimizer::Pointers Optimizer::pointers(size_t i) const {
  const Part& part = parts_[i];
  return {shards_.values(i).data_ptr<float>(), shards_.gradients(i).data_ptr<float>(), part.moments[0].data_ptr<float>(),
          part.moments.size() > 1 ? part.moments[1].data_ptr<float>() : nullptr};
}

kernels::AdamStep Optimizer::adam_step(const Part& part, int64_t step, double learning_rate, double gradient_scale) const {
  kernels::AdamStep update;
  update.lr = static_cast<float>(learning_rate);
  update.beta1 = static_cast<float>(config_.beta1);
  update.beta2 = static_cast<float>(config_.beta2);
  update.eps = static_cast<float>(config_.eps);
  update.weight_decay = part.weight_decay;
  update.gradient_scale = static_cast<float>(gradient_scale);
  update.step = step;
  return update;
}

// Plain parameters at once; those of LAMB when their norms are known over all shards.
void Optimizer::adam(int64_t step, double learning_rate, double gradient_scale, Deadline deadline) {
  std::vector<kernels::SquareSums> sums(parts_.size());
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].count == 0) continue;
    const auto [weights, gradients, m, v] = pointers(i);
    const kernels::AdamStep update = adam_step(parts_[i], step, learning_rate, gradient_scale);
    if (parts_[i].layer_wise) {
      sums[i] = kernels::lamb_moments(weights, gradients, m, v, parts_[i].count, update);
    } else {
      kernels::adamw(weights, gradients, m, v, parts_[i].count, update);
    }
  }
  if (config_.name != config::OptimizerName::kLamb) return;
  sums = over_shards(std::move(sums), deadline);
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (!parts_[i].layer_wise || parts_[i].count == 0) continue;
    const auto [weights, gradients, m, v] = pointers(i);
    const double trust = ratio_or_one(std::sqrt(sums[i].weights), std::sqrt(sums[i].update));
    kernels::lamb_update(weights, m, v, parts_[i].count, adam_step(parts_[i], step, learning_rate, gradient_scale), static_cast<float>(trust));
  }
}

void Optimizer::momentum_sgd(double learning_rate, double gradient_scale, Deadline deadline) {
  std::vector<kernels::SquareSums> sums(parts_.size());
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (!parts_[i].layer_wise || parts_[i].count == 0) continue;
    const auto p = pointers(i);
    sums[i] = {kernels::sum_of_squares(p.weights, parts_[i].count), kernels::sum_of_squares(p.gradients, parts_[i].count) * gradient_scale * gradient_scale};
  }
  if (config_.name == config::OptimizerName::kLars) sums = over_shards(std::move(sums), deadline);
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].count == 0) continue;
    const auto p = pointers(i);
    kernels::momentum_sgd(p.weights, p.gradients, p.m, parts_[i].count, momentum_step(parts_[i], learning_rate, gradient_scale, sums[i]));
  }
}

kernels::MomentumStep Optimizer::momentum_step(const Part& part, double learning_rate, double gradient_scale, const kernels::SquareSums& sums) const {
  kernels::MomentumStep update;
  update.lr = static_cast<float>(learning_rate);
  update.momentum = static_cast<float>(config_.momentum);
  update.weight_decay = part.weight_decay;
  update.gradient_scale = static_cast<float>(gradient_scale);
  if (!part.layer_wise) return update;
  const double weights = std::sqrt(sums.weights), gradients = std::sqrt(sums.update);
  update.lr_scale = static_cast<float>(weights > 0 && gradients > 0 ? config_.trust_coefficient * weights / (gradients + part.weight_decay * weights) : 1);
  return update;
}

kernels::OptimizedTensors Optimizer::tensors(size_t i) const {
  const Part& part = parts_[i];
  return {shards_.values(i), shards_.gradients(i), part.moments[0], part.moments.size() > 1 ? part.moments[1] : at::Tensor()};
}

// The rules of adam() and momentum_sgd(), in few launches: parameters that take the same step go together, layer-wise ones by themselves.
void Optimizer::step_on_device(int64_t step, double learning_rate, double gradient_scale, Deadline deadline) {
  std::map<float, std::vector<kernels::OptimizedTensors>> plain;  // by weight decay
  std::vector<size_t> layer_wise;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].layer_wise) layer_wise.push_back(i);
    else if (parts_[i].count > 0) plain[parts_[i].weight_decay].push_back(tensors(i));
  }
  for (const auto& [weight_decay, group] : plain) {
    Part like;
    like.weight_decay = weight_decay;
    if (is_adam()) kernels::adamw(group, adam_step(like, step, learning_rate, gradient_scale));
    else kernels::momentum_sgd(group, momentum_step(like, learning_rate, gradient_scale, {}));
  }
  if (config_.name != config::OptimizerName::kLamb && config_.name != config::OptimizerName::kLars) return;
  std::vector<kernels::SquareSums> sums(parts_.size());
  std::vector<at::Tensor> weights, directions;
  std::vector<size_t> here;
  for (const size_t i : layer_wise) {
    if (parts_[i].count == 0) continue;
    const kernels::OptimizedTensors t = tensors(i);
    here.push_back(i);
    weights.push_back(t.weights);
    directions.push_back(is_adam() ? kernels::lamb_direction(t, adam_step(parts_[i], step, learning_rate, gradient_scale)) : t.gradients);
  }
  const std::vector<double> weight_squares = kernels::sums_of_squares(weights), squares = kernels::sums_of_squares(directions);
  for (size_t k = 0; k < here.size(); ++k) sums[here[k]] = {weight_squares[k], squares[k] * (is_adam() ? 1 : gradient_scale * gradient_scale)};
  sums = over_shards(std::move(sums), deadline);
  for (size_t k = 0; k < here.size(); ++k) {
    const size_t i = here[k];
    const double trust = ratio_or_one(std::sqrt(sums[i].weights), std::sqrt(sums[i].update));
    if (is_adam()) weights[k].sub_(directions[k], learning_rate * trust);
    else kernels::momentum_sgd({tensors(i)}, momentum_step(parts_[i], learning_rate, gradient_scale, sums[i]));
  }
}

std::vector<kernels::SquareSums> Optimizer::over_shards(std::vector<kernels::SquareSums> sums, Deadline deadline) const {
  if (shards_.replicas() == nullptr) return sums;
  static_assert(sizeof(kernels::SquareSums) == 2 * sizeof(double));
  at::Tensor all = at::from_blob(sums.data(), {static_cast<int64_t>(2 * sums.size())}, at::kDouble).clone();
  shards_.replicas()->all_reduce(all, comm::Reduce::kSum)->wait(deadline);
  const double* value = all.data_ptr<double>();
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = {value[2 * i], value[2 * i + 1]};
  return sums;
}

std::vector<at::Tensor> Optimizer::moments(size_t i, Deadline deadline) const {
  std::vector<at::Tensor> whole;
  for (const at::Tensor& mine : parts_[i].moments) whole.push_back(shards_.whole(i, mine, deadline));
  return whole;
}

void Optimizer::set_moments(size_t i, const std::vector<at::Tensor>& moments) {
  Part& part = parts_[i];
  PENSTOCK_CHECK(moments.size() == part.moments.size(), "{} moments, expected {}", moments.size(), part.moments.size());
  const ParameterShards::Range own = shards_.own(i);
  for (size_t k = 0; k < moments.size(); ++k) part.moments[k].copy_(moments[k].reshape({-1}).narrow(0, own.begin, own.count));
}

void Optimizer::cut_anew(const std::function<void()>& change, Deadline deadline) {
  std::vector<std::vector<int64_t>> before;
  for (size_t i = 0; i < parts_.size(); ++i) before.push_back(shards_.cuts(i));
  change();
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (shards_.cuts(i) == before[i]) continue;
    const ParameterShards::Range own = shards_.own(i);
    for (at::Tensor& moment : parts_[i].moments) moment = shards_.whole(i, moment, before[i], deadline).view({-1}).narrow(0, own.begin, own.count).clone();
    parts_[i].count = own.count;
  }
}

int64_t Optimizer::state_bytes() const {
  int64_t bytes = 0;
  for (const Part& part : parts_) {
    for (const at::Tensor& moment : part.moments) bytes += static_cast<int64_t>(moment.nbytes());
  }
  return bytes;
}

double clip_factor(double norm, double clip_norm) { return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1; }

}  // namespace penstock::train
