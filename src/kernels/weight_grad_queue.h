#pragma once
// Weight gradients put off: zero-bubble schedules compute them when nobody waits.
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "kernels/compute.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// What linear()'s backward leaves to do when it only made the gradient of its input. One queue for each micro-batch of a stage.
//
// Threads:  one.
// Memory:   an item keeps the input and the output gradient of its product until it is run.
class WeightGradQueue {
 public:
  struct Item {
    Tensor x;            // [N, D] float32
    Tensor grad_output;  // [N, O] float32
    Tensor weight;       // [O, D] a leaf
    Compute compute = Compute::kFp32;
  };

  void push(Item item) { items_.push_back(std::move(item)); }

  // Adds grad_outputᵀ · x of every item to its weight's grad(), oldest first, and empties the queue.
  // `complete` is called for each weight when its last item has been added; it may be empty.
  void run(const std::function<void(const Tensor& weight)>& complete);

  // Each weight once.
  [[nodiscard]] std::vector<Tensor> weights() const;
  [[nodiscard]] bool empty() const { return items_.empty(); }

 private:
  std::vector<Item> items_;
};

}  // namespace penstock::kernels
