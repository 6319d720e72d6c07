#pragma once
// Receive buffers, used again and again.
#include <ATen/core/Tensor.h>

#include <map>
#include <tuple>
#include <vector>

namespace penstock::pipeline {

// Buffers by shape, dtype and device. A buffer is free when nobody else holds its storage any more, so nothing has to be given back.
//
// Threads: one.
class BufferPool {
 public:
  // Contiguous, contents undefined. Allocates only when all buffers of this shape, dtype and device are in use.
  [[nodiscard]] at::Tensor take(at::IntArrayRef shape, at::ScalarType type, at::Device device = at::kCPU);
  // Forgets free buffers of shapes that have not been taken for kForgetAfter steps: shapes may change from batch to batch.
  void end_step();
  [[nodiscard]] size_t num_buffers() const;

  static constexpr int64_t kForgetAfter = 8;

 private:
  struct Shelf {
    std::vector<at::Tensor> buffers;
    size_t next = 0;  // where to look first: buffers come free in about the order in which they were taken
    int64_t last_taken = 0;  // step
  };
  int64_t step_ = 0;
  std::map<std::tuple<std::vector<int64_t>, at::ScalarType, std::pair<at::DeviceType, at::DeviceIndex>>, Shelf> shelves_;
};

}  // namespace penstock::pipeline
