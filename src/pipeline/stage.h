#pragma once
// Consecutive layers of a model on one device.
#include <memory>
#include <span>
#include <vector>

#include "model/layer.h"

namespace penstock::pipeline {

// Layers [first_layer, first_layer + count) of the model; builds these and no others. Parameters are allocated, not set.
//
// Threads: owned by one thread.
class Stage {
 public:
  // `index` of `num_stages`; `specs` are all layers of the model, `boundaries` (num_stages + 1 values) cut them.
  Stage(std::span<const model::LayerSpec> specs, std::span<const int> boundaries, int index);

  [[nodiscard]] model::Tensors forward(model::Tensors inputs, const model::ForwardContext& context);

  // Each tensor once, in forward order.
  [[nodiscard]] std::vector<model::Parameter>& parameters() { return parameters_; }
  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] int num_stages() const { return num_stages_; }
  [[nodiscard]] bool is_first() const { return index_ == 0; }
  [[nodiscard]] bool is_last() const { return index_ == num_stages_ - 1; }
  [[nodiscard]] int first_layer() const { return first_layer_; }
  [[nodiscard]] int num_layers() const { return static_cast<int>(layers_.size()); }

 private:
  const int index_, num_stages_, first_layer_;
  std::vector<std::unique_ptr<model::Layer>> layers_;
  std::vector<model::Parameter> parameters_;
};

}  // namespace penstock::pipeline
