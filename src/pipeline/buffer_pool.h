#pragma once
// Receive buffers, used again and again.
#include <ATen/core/Tensor.h>

#include <map>
#include <utility>
#include <vector>

namespace penstock::pipeline {

// Buffers by shape and dtype. A buffer is free when nobody else holds its storage any more, so nothing has to be given back.
//
// Threads: one.
class BufferPool {
 public:
  // Contiguous, on the CPU, contents undefined. Allocates only when all buffers of this shape and dtype are in use.
  [[nodiscard]] at::Tensor take(at::IntArrayRef shape, at::ScalarType type);
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
  std::map<std::pair<std::vector<int64_t>, at::ScalarType>, Shelf> shelves_;
};

}  // namespace penstock::pipeline
