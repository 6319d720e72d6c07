#pragma once
// Weight gradients put off: zero-bubble schedules compute them when nobody waits.
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace penstock::kernels {

// What a backward pass leaves to do when it makes only the gradients that the previous stage waits for. kernels::linear() uses it; a layer with
// another operation of its own may too. One queue for each micro-batch of a stage.
//
// Threads:  one.
// Memory:   an item keeps what it captures, such as the input and the output gradient of a product, until it is run.
class WeightGradQueue {
 public:
  // `add` adds the gradient to `grad`, the weight's grad() (never undefined, possibly zeros).
  void push(at::Tensor weight, std::function<void(at::Tensor& grad)> add) { items_.push_back({std::move(weight), std::move(add)}); }

  // Runs every item, oldest first, and empties the queue. `complete` is called for each weight when its last item has run; it may be empty.
  void run(const std::function<void(const at::Tensor& weight)>& complete);

  // Each weight once.
  [[nodiscard]] std::vector<at::Tensor> weights() const;
  [[nodiscard]] bool empty() const { return items_.empty(); }

 private:
  struct Item {
    at::Tensor weight;  // a leaf
    std::function<void(at::Tensor& grad)> add;
  };
  std::vector<Item> items_;
};

}  // namespace penstock::kernels
