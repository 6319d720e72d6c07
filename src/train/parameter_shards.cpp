#include "train/parameter_shards.h"

namespace penstock::train {

at::TensorOptions ParameterShards::device_options() const {
  return at::TensorOptions(at::kFloat).device(parameters_.empty() ? at::Device(at::kCPU) : parameters_.front().value.device());
}

void ParameterShards::initialize(const Initializer& set) {
  for (model::Parameter& p : parameters_) set(p);
}

at::Tensor ParameterShards::whole_value(size_t i, Deadline /*deadline*/) const { return parameters_[i].value.detach(); }

void ParameterShards::set_value(size_t i, const at::Tensor& whole) {
  const at::NoGradGuard no_grad;
  parameters_[i].value.copy_(whole);
}

std::vector<int64_t> ParameterShards::cuts(size_t i) const {
  std::vector<int64_t> cuts = {0};
  const int replicas = replicas_ != nullptr ? replicas_->size() : 1;
  for (int replica = 0; replica < replicas; ++replica) cuts.push_back(cuts.back() + range(i, replica).count);
  return cuts;
}

at::Tensor ParameterShards::whole(size_t i, const at::Tensor& own_part, const std::vector<int64_t>& cuts, Deadline deadline) const {
  const at::Tensor& value = parameters_[i].value;
  if (replicas_ == nullptr) return own_part.view(value.sizes());
  at::Tensor all = at::zeros({value.numel()}, device_options());
  all.narrow(0, cuts[static_cast<size_t>(replicas_->rank())], own_part.numel()).copy_(own_part);
  replicas_->all_gather(all, cuts)->wait(deadline);
  return all.view(value.sizes());
}

}  // namespace penstock::train
