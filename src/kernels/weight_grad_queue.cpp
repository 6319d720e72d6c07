#include "kernels/weight_grad_queue.h"

#include <algorithm>

namespace penstock::kernels {

void WeightGradQueue::run(const std::function<void(const at::Tensor& weight)>& complete) {
  const at::NoGradGuard no_grad;
  for (size_t i = 0; i < items_.size(); ++i) {
    Item& item = items_[i];
    at::Tensor& grad = item.weight.mutable_grad();
    if (!grad.defined()) grad = at::zeros_like(item.weight);
    item.add(grad);
    const bool last = std::none_of(items_.begin() + static_cast<std::ptrdiff_t>(i) + 1, items_.end(),
                                   [&](const Item& later) { return later.weight.is_same(item.weight); });
    if (last && complete) complete(item.weight);
    item.add = nullptr;  // what it kept is free from here
  }
  items_.clear();
}

std::vector<at::Tensor> WeightGradQueue::weights() const {
  std::vector<at::Tensor> distinct;
  for (const Item& item : items_) {
    const bool known = std::any_of(distinct.begin(), distinct.end(), [&](const at::Tensor& t) { return t.is_same(item.weight); });
    if (!known) distinct.push_back(item.weight);
  }
  return distinct;
}

}  // namespace penstock::kernels
