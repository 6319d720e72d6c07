#include "train/parameter_shards.h"

#include <algorithm>

namespace penstock::train {
namespace {

constexpr int64_t kAlignment = 16;  // elements: a cache line

}  // namespace

void ParameterShards::initialize(const Initializer& set) {
  for (model::Parameter& p : parameters_) set(p);
}

at::Tensor ParameterShards::whole_value(size_t i, Deadline /*deadline*/) const { return parameters_[i].value.detach(); }

void ParameterShards::set_value(size_t i, const at::Tensor& whole) {
  const at::NoGradGuard no_grad;
  parameters_[i].value.copy_(whole);
}

at::Tensor ParameterShards::whole(size_t i, const at::Tensor& own_part, Deadline deadline) const {
  const at::Tensor& value = parameters_[i].value;
  if (replicas_ == nullptr) return own_part.view(value.sizes());
  at::Tensor all = at::empty({value.numel()}, at::kFloat);
  std::vector<int64_t> offsets = {0};
  for (int replica = 0; replica < replicas_->size(); ++replica) offsets.push_back(offsets.back() + range(i, replica).count);
  all.narrow(0, own(i).begin, own(i).count).copy_(own_part);
  replicas_->all_gather(all, offsets)->wait(deadline);
  return all.view(value.sizes());
}

FlatShards::FlatShards(std::vector<model::Parameter>& parameters, comm::Communicator* replicas) : ParameterShards(parameters, replicas) {
  if (replicas == nullptr) return;
  int64_t total = 0;
  for (const model::Parameter& p : parameters) {
    offsets_.push_back(total);
    total += p.value.numel();
  }
  flat_ = at::empty({total}, at::kFloat);
  for (size_t i = 0; i < parameters.size(); ++i) {
    at::Tensor& value = parameters[i].value;
    value.set_data(flat_.narrow(0, offsets_[i], value.numel()).view(value.sizes()));
  }
}

ParameterShards::Range FlatShards::run(int replica) const {
  const int64_t total = flat_.numel(), count = replicas_->size();
  const int64_t each = (total + count * kAlignment - 1) / (count * kAlignment) * kAlignment;
  const int64_t begin = std::min(total, replica * each);
  return {begin, std::min(total, begin + each) - begin};
}

ParameterShards::Range FlatShards::range(size_t i, int replica) const {
  const int64_t size = parameters_[i].value.numel();
  if (replicas_ == nullptr) return {0, size};
  const Range all = run(replica);
  const int64_t begin = std::clamp(all.begin - offsets_[i], int64_t{0}, size), end = std::clamp(all.begin + all.count - offsets_[i], int64_t{0}, size);
  return {begin, end - begin};
}

at::Tensor FlatShards::values(size_t i) const {
  const Range r = own(i);
  return parameters_[i].value.detach().view({-1}).narrow(0, r.begin, r.count);
}

at::Tensor FlatShards::gradients(size_t i) const {
  const Range r = own(i);
  return summed_gradient(i).narrow(0, r.begin, r.count);
}

at::Tensor FlatShards::summed_gradient(size_t i) const { return parameters_[i].value.grad().view({-1}); }

void FlatShards::share_updated(Deadline deadline) {
  if (replicas_ == nullptr) return;
  std::vector<int64_t> offsets = {0};
  for (int replica = 0; replica < replicas_->size(); ++replica) offsets.push_back(run(replica).begin + run(replica).count);
  replicas_->all_gather(flat_, offsets)->wait(deadline);
}

}  // namespace penstock::train
