#include "train/optimizer.h"

#include <algorithm>

#include "kernels/adamw.h"

namespace penstock::train {
namespace {

constexpr int64_t kShardAlignment = 16;  // elements: a cache line

}  // namespace

Optimizer::Optimizer(std::vector<model::Parameter>& parameters, const config::OptimizerConfig& config, comm::Communicator* shards)
    : parameters_(parameters), config_(config), shards_(shards) {
  if (shards_ != nullptr) move_values_into_flat();
  int64_t offset = 0;
  for (const model::Parameter& p : parameters) {
    Part part{0, p.value.numel(), {}, {}};
    if (shards_ != nullptr) {
      const auto [begin, end] = shard(shards_->rank());
      part.begin = std::clamp(begin - offset, int64_t{0}, p.value.numel());
      part.count = std::clamp(end - offset, int64_t{0}, p.value.numel()) - part.begin;
    }
    part.first = at::zeros({part.count}, at::kFloat);
    part.second = at::zeros({part.count}, at::kFloat);
    offset += p.value.numel();
    parts_.push_back(std::move(part));
  }
}

std::pair<int64_t, int64_t> Optimizer::shard(int replica) const {
  const int64_t total = flat_.numel(), count = shards_->size();
  const int64_t each = (total + count * kShardAlignment - 1) / (count * kShardAlignment) * kShardAlignment;
  return {std::min(total, replica * each), std::min(total, (replica + 1) * each)};
}

void Optimizer::move_values_into_flat() {
  const at::NoGradGuard no_grad;
  int64_t total = 0;
  for (const model::Parameter& p : parameters_) total += p.value.numel();
  flat_ = at::empty({total}, at::kFloat);
  int64_t offset = 0;
  for (model::Parameter& p : parameters_) {
    const at::Tensor view = flat_.narrow(0, offset, p.value.numel()).view(p.value.sizes());
    view.copy_(p.value);
    p.value.set_data(view);
    offset += p.value.numel();
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

void Optimizer::step(int64_t step, double learning_rate, double gradient_scale, Deadline deadline) {
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const model::Parameter& p = parameters_[i];
    const Part& part = parts_[i];
    if (part.count == 0) continue;
    kernels::AdamwStep update;
    update.lr = static_cast<float>(learning_rate);
    update.beta1 = static_cast<float>(config_.beta1);
    update.beta2 = static_cast<float>(config_.beta2);
    update.eps = static_cast<float>(config_.eps);
    update.weight_decay = p.decay ? static_cast<float>(config_.weight_decay) : 0.0f;
    update.gradient_scale = static_cast<float>(gradient_scale);
    update.step = step;
    kernels::adamw(p.value.data_ptr<float>() + part.begin, p.value.grad().data_ptr<float>() + part.begin, part.first.data_ptr<float>(),
                   part.second.data_ptr<float>(), part.count, update);
  }
  if (shards_ != nullptr) share_updated_weights(deadline);
}

void Optimizer::share_updated_weights(Deadline deadline) {
  std::vector<at::Tensor> shards;
  std::vector<comm::WorkPtr> works;
  for (int replica = 0; replica < shards_->size(); ++replica) {
    const auto [begin, end] = shard(replica);
    if (begin == end) continue;
    shards.push_back(flat_.narrow(0, begin, end - begin));
    works.push_back(shards_->broadcast(shards.back(), replica));
  }
  for (auto& work : works) work->wait(deadline);
}

Optimizer::Moments Optimizer::moments(size_t i, Deadline deadline) const {
  const at::Tensor& value = parameters_[i].value;
  const Part& part = parts_[i];
  const auto whole = [&](const at::Tensor& mine) {
    if (shards_ == nullptr) return mine.view(value.sizes());
    at::Tensor all = at::zeros({value.numel()}, at::kFloat);
    all.narrow(0, part.begin, part.count).copy_(mine);
    shards_->all_reduce(all, comm::Reduce::kSum)->wait(deadline);
    return all.view(value.sizes());
  };
  return {whole(part.first), whole(part.second)};
}

void Optimizer::set_moments(size_t i, const Moments& moments) {
  Part& part = parts_[i];
  part.first.copy_(moments.first.reshape({-1}).narrow(0, part.begin, part.count));
  part.second.copy_(moments.second.reshape({-1}).narrow(0, part.begin, part.count));
}

int64_t Optimizer::state_bytes() const {
  int64_t bytes = 0;
  for (const Part& part : parts_) bytes += static_cast<int64_t>(part.first.nbytes() + part.second.nbytes());
  return bytes;
}

double clip_factor(double norm, double clip_norm) { return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1; }

}  // namespace penstock::train
