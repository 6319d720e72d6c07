#include "pipeline/buffer_pool.h"

namespace penstock::pipeline {

at::Tensor BufferPool::take(at::IntArrayRef shape, at::ScalarType type) {
  Shelf& shelf = shelves_[{shape.vec(), type}];
  auto& [buffers, next] = shelf;
  for (size_t tried = 0; tried < buffers.size(); ++tried) {
    const at::Tensor& buffer = buffers[next];
    next = (next + 1) % buffers.size();
    if (buffer.storage().use_count() == 1) return buffer.detach();
  }
  buffers.push_back(at::empty(shape, type));
  next = 0;
  return buffers.back().detach();
}

size_t BufferPool::num_buffers() const {
  size_t count = 0;
  for (const auto& [key, shelf] : shelves_) count += shelf.buffers.size();
  return count;
}

}  // namespace penstock::pipeline
