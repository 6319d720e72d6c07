#include "pipeline/message_shapes.h"

namespace penstock::pipeline {

std::vector<TensorShape> shapes_of(const model::Tensors& tensors) {
  std::vector<TensorShape> shapes;
  for (const at::Tensor& t : tensors) shapes.push_back({t.sizes().vec(), t.scalar_type()});
  return shapes;
}

const std::vector<TensorShape>* MessageShapes::expected(int key) const {
  const auto index = static_cast<size_t>(key);
  return index < last_.size() && last_[index].repeated ? &last_[index].shapes : nullptr;
}

void MessageShapes::note(int key, const std::vector<TensorShape>& shapes) {
  const auto index = static_cast<size_t>(key);
  if (index >= last_.size()) last_.resize(index + 1);
  Last& last = last_[index];
  last.repeated = !shapes.empty() && last.shapes == shapes;
  if (!last.repeated) last.shapes = shapes;
}

}  // namespace penstock::pipeline
