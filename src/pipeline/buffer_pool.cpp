#include "pipeline/buffer_pool.h"

namespace penstock::pipeline {

at::Tensor BufferPool::take(at::IntArrayRef shape, at::ScalarType type, at::Device device) {
  Shelf& shelf = shelves_[{shape.vec(), type, {device.type(), device.index()}}];
  auto& [buffers, next, last_taken] = shelf;
  last_taken = step_;
  for (size_t tried = 0; tried < buffers.size(); ++tried) {
    const at::Tensor& buffer = buffers[next];
    next = (next + 1) % buffers.size();
    if (buffer.storage().use_count() == 1) return buffer.detach();
  }
  buffers.push_back(at::empty(shape, at::TensorOptions(type).device(device)));
  next = 0;
  return buffers.back().detach();
}

void BufferPool::end_step() {
  ++step_;
  for (auto& [key, shelf] : shelves_) {
    if (shelf.last_taken + kForgetAfter >= step_) continue;
    std::erase_if(shelf.buffers, [](const at::Tensor& buffer) { return buffer.storage().use_count() == 1; });
    shelf.next = 0;
  }
  std::erase_if(shelves_, [](const auto& entry) { return entry.second.buffers.empty(); });
}

size_t BufferPool::num_buffers() const {
  size_t count = 0;
  for (const auto& [key, shelf] : shelves_) count += shelf.buffers.size();
  return count;
}

}  // namespace penstock::pipeline
