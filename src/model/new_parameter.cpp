#include "model/new_parameter.h"

namespace penstock::model {

at::Tensor new_weight(at::IntArrayRef shape) { return at::empty(shape, at::kFloat).requires_grad_(true); }

at::Tensor optional_weight(bool has, at::IntArrayRef shape) { return has ? new_weight(shape) : at::Tensor(); }

Parameter whole(const std::string& name, const at::Tensor& value, double init_std) {
  return {name, value, {{name, 0, value.size(0)}}, init_std, value.dim() > 1};
}

Parameter bias_of(const std::string& name, const at::Tensor& value, std::vector<StoredRows> stored) {
  if (stored.empty()) stored = {{name, 0, value.size(0)}};
  return {name, value, std::move(stored), 0, false, 0};
}

Parameter used_as(WeightUse use, Parameter parameter) {
  parameter.use = use;
  return parameter;
}

}  // namespace penstock::model
