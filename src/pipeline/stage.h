#pragma once
// Consecutive layers of a model on one device.
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/layer.h"
#include "pipeline/activation.h"

namespace penstock::pipeline {

// Told of every use of layers [first, last) of the model, right before and right after it, for weights that are not always there.
struct LayerVisits {
  std::function<void(int first, int last)> before, after;
};

// Layers [first_layer, first_layer + count) of the model; builds these and no others. Parameters are allocated, not set.
//
// Threads: owned by one thread.
class Stage {
 public:
  // `index` of `num_stages`; `specs` are all layers of the model, `boundaries` (num_stages + 1 values) cut them.
  // `checkpoint_layers` > 0: training keeps only the input of every so many layers and computes them again in the backward pass,
  // drawing the same random numbers again; ranks that are threads share one generator, so that layers which draw from it (dropout) then differ.
  // `shared`: weights that the layers of one rank have in common, over all its stages; null when this is the only one.
  // `device`: where the parameters are moved, and inputs have to be. Layers make them on the CPU.
  Stage(std::span<const model::LayerSpec> specs, std::span<const int> boundaries, int index, int checkpoint_layers = 0,
        model::SharedWeights* shared = nullptr, at::Device device = at::kCPU);

  // Backward passes then go layer by layer, or segment by segment where layers are computed again.
  void set_visits(LayerVisits visits) { visits_ = std::move(visits); }

  // Without a graph of its own: records what the caller's grad mode says.
  [[nodiscard]] model::Tensors forward(model::Tensors inputs, const model::ForwardContext& context);

  // For training: fills `activation`, whose inputs are set. With a queue in `context.linear.weight_grads` (the activation's own) the backward
  // leaves weight gradients to it.
  void forward(Activation& activation, const model::ForwardContext& context);

  // From the gradients of the outputs that require one; adds to grad() of parameters and inputs. Layers that were not kept are computed again,
  // with the same context.
  void backward(Activation& activation, const model::Tensors& output_gradients, const model::ForwardContext& context);

  // Each tensor once, in forward order.
  [[nodiscard]] std::vector<model::Parameter>& parameters() { return parameters_; }
  // Of one layer of this stage, by its index in the model.
  [[nodiscard]] const std::vector<at::Tensor>& values_of(int layer) const { return layer_values_.at(static_cast<size_t>(layer - first_layer_)); }
  [[nodiscard]] bool recomputes() const { return checkpoint_layers_ > 0; }
  [[nodiscard]] at::Device device() const { return device_; }
  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] int num_stages() const { return num_stages_; }
  [[nodiscard]] bool is_first() const { return index_ == 0; }
  [[nodiscard]] bool is_last() const { return index_ == num_stages_ - 1; }
  [[nodiscard]] int first_layer() const { return first_layer_; }
  [[nodiscard]] int num_layers() const { return static_cast<int>(layers_.size()); }

 private:
  [[nodiscard]] model::Tensors run(int first_layer, int last_layer, model::Tensors inputs, const model::ForwardContext& context);
  [[nodiscard]] model::Tensors visit(int first_layer, int last_layer, model::Tensors inputs, const model::ForwardContext& context);
  void visited(const std::function<void(int, int)>& visit, int first_layer, int last_layer) const;

  const int index_, num_stages_, first_layer_, checkpoint_layers_;
  const at::Device device_;
  std::vector<std::unique_ptr<model::Layer>> layers_;
  std::vector<model::Parameter> parameters_;
  std::vector<std::vector<at::Tensor>> layer_values_;  // by layer
  LayerVisits visits_;
};

}  // namespace penstock::pipeline
