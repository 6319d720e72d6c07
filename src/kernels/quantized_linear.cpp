#include "kernels/quantized_linear.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/quantized_product.h"

namespace penstock::kernels {

void QuantizedWeights::put(Tensor& weight, QuantizedWeight quantized) {
  PENSTOCK_CHECK(weight.dim() == 2 && weight.size(0) == quantized.rows() && weight.size(1) == quantized.columns() && !weight.requires_grad(),
                 "a quantized weight of {} x {} for a tensor of {} elements", quantized.rows(), quantized.columns(), weight.numel());
  weight.set_data(at::zeros({1, 1}, weight.options()).expand(weight.sizes()));
  weights_.insert_or_assign(weight.unsafeGetTensorImpl(), std::move(quantized));
}

const QuantizedWeight* QuantizedWeights::find(const Tensor& weight) const {
  const auto found = weights_.find(weight.unsafeGetTensorImpl());
  return found == weights_.end() ? nullptr : &found->second;
}

int64_t QuantizedWeights::bytes() const {
  int64_t sum = 0;
  for (const auto& [identity, weight] : weights_) sum += weight.bytes();
  return sum;
}

Tensor quantized_linear(const Tensor& x, const QuantizedWeight& weight) {
  PENSTOCK_CHECK(x.size(-1) == weight.columns(), "linear: x has {} columns, the quantized weight expects {}", x.size(-1), weight.columns());
  auto shape = x.sizes().vec();
  shape.back() = weight.rows();
  const Tensor rows = x.contiguous();
  Tensor y = at::empty(shape, x.options());
  multiply(weight, rows.data_ptr<float>(), rows.numel() / weight.columns(), y.data_ptr<float>());
  return y;
}

Tensor quantized_rows_of(const QuantizedWeight& table, const Tensor& ids) {
  auto shape = ids.sizes().vec();
  shape.push_back(table.columns());
  const Tensor rows = ids.contiguous();
  Tensor out = at::empty(shape, ids.options().dtype(at::kFloat));
  const auto* id = rows.data_ptr<int64_t>();
  float* to = out.data_ptr<float>();
  for (int64_t i = 0; i < rows.numel(); ++i) table.get_values(id[i], to + i * table.columns());
  return out;
}

}  // namespace penstock::kernels
