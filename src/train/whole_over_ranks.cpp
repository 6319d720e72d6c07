#include "train/whole_over_ranks.h"

#include "base/error.h"
#include "model/whole_parameter.h"

namespace penstock::train {

model::Parameter whole_over_ranks(const model::Parameter& parameter, const at::Tensor& value, comm::Communicator* tensor, Deadline deadline) {
  if (!parameter.is_cut()) {
    model::Parameter same = parameter;
    same.value = value;
    return same;
  }
  PENSTOCK_CHECK(tensor != nullptr, "{} is cut, and nobody is known to have the rest", parameter.name);
  const at::NoGradGuard no_grad;
  const model::WholeParameter place(parameter);
  at::Tensor whole = at::zeros(place.shape(), value.options().dtype(at::kFloat));
  for (size_t i = 0; i < parameter.stored.size(); ++i) place.part(i, whole).copy_(place.own(i, value));
  tensor->all_reduce(whole, comm::Reduce::kSum)->wait(deadline);  // each element is on one rank, and zero on the others
  return place.uncut(std::move(whole));
}

at::Tensor host_copy(const at::Tensor& tensor) { return tensor.detach().to(at::kCPU, tensor.scalar_type(), /*non_blocking=*/false, /*copy=*/true); }

int64_t whole_elements(const model::Parameter& parameter) {
  if (!parameter.is_cut()) return parameter.value.numel();
  const model::WholeParameter whole(parameter);
  int64_t product = 1;
  for (const int64_t size : whole.shape()) product *= size;
  return product;
}

}  // namespace penstock::train
