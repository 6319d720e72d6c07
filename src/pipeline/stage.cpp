#include "pipeline/stage.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <mutex>

#include "base/error.h"

namespace penstock::pipeline {
namespace {

// Those that a layer on `device` may draw from: the CPU's, and the device's own.
std::vector<at::Generator> generators_of(const at::Device& device) {
  std::vector<at::Generator> all = {at::globalContext().defaultGenerator(at::kCPU)};
  if (!device.is_cpu()) all.push_back(at::globalContext().defaultGenerator(device));
  return all;
}

model::Tensors random_states(const at::Device& device) {
  model::Tensors states;
  for (at::Generator& generator : generators_of(device)) {
    const std::lock_guard lock(generator.mutex());
    states.push_back(generator.get_state());
  }
  return states;
}

void set_random_states(const at::Device& device, const model::Tensors& states) {
  std::vector<at::Generator> generators = generators_of(device);
  for (size_t i = 0; i < generators.size(); ++i) {
    const std::lock_guard lock(generators[i].mutex());
    generators[i].set_state(states.at(i));
  }
}

// Draws as they were drawn from `states` on, and goes back to the present ones at the end.
class ReplayedRandomness {
 public:
  ReplayedRandomness(const at::Device& device, const model::Tensors& states) : device_(device), present_(random_states(device)) { set_random_states(device, states); }
  ~ReplayedRandomness() { set_random_states(device_, present_); }
  ReplayedRandomness(const ReplayedRandomness&) = delete;
  ReplayedRandomness& operator=(const ReplayedRandomness&) = delete;

 private:
  const at::Device device_;
  const model::Tensors present_;
};

// Backward from those outputs that require a gradient; `gradients` are theirs, or empty for a scalar loss.
void run_backward(const model::Tensors& outputs, const model::Tensors& gradients) {
  model::Tensors roots;
  for (const at::Tensor& t : outputs) {
    if (t.requires_grad()) roots.push_back(t);
  }
  if (!roots.empty()) torch::autograd::backward(roots, gradients);
}

}  // namespace

model::Tensors gradients_of(const model::Tensors& tensors) {
  model::Tensors gradients;
  for (const at::Tensor& t : tensors) {
    if (t.requires_grad()) gradients.push_back(t.grad().defined() ? t.grad() : at::zeros_like(t));
  }
  return gradients;
}

model::Tensors as_leaves(const model::Tensors& tensors) {
  model::Tensors leaves;
  for (const at::Tensor& t : tensors) leaves.push_back(t.detach().requires_grad_(t.requires_grad()));
  return leaves;
}

Stage::Stage(std::span<const model::LayerSpec> specs, std::span<const int> boundaries, int index, int checkpoint_layers, model::SharedWeights* shared,
             at::Device device)
    : index_(index),
      num_stages_(static_cast<int>(boundaries.size()) - 1),
      first_layer_(boundaries[static_cast<size_t>(index)]),
      checkpoint_layers_(checkpoint_layers),
      device_(device) {
  PENSTOCK_CHECK(boundaries.front() == 0 && boundaries.back() == static_cast<int>(specs.size()),
                 "the stages cover layers {} to {}, the model has {}", boundaries.front(), boundaries.back(), specs.size());
  model::SharedWeights own;
  for (int i = first_layer_; i < boundaries[static_cast<size_t>(index) + 1]; ++i) {
    layers_.push_back(specs[static_cast<size_t>(i)].build(shared != nullptr ? *shared : own));
    layer_values_.emplace_back();
    for (model::Parameter& p : layers_.back()->parameters()) {
      if (p.value.device() != device_) p.value.set_data(p.value.detach().to(device_));  // the layer's handle sees it too
      layer_values_.back().push_back(p.value);
      const bool known = std::any_of(parameters_.begin(), parameters_.end(), [&](const auto& q) { return q.value.is_same(p.value); });
      if (!known) parameters_.push_back(std::move(p));
    }
  }
}

model::Tensors Stage::run(int first_layer, int last_layer, model::Tensors inputs, const model::ForwardContext& context) {
  for (int i = first_layer; i < last_layer; ++i) inputs = layers_[static_cast<size_t>(i)]->forward(inputs, context);
  return inputs;
}

// Layer by layer, each announced.
model::Tensors Stage::visit(int first_layer, int last_layer, model::Tensors inputs, const model::ForwardContext& context) {
  for (int i = first_layer; i < last_layer; ++i) {
    visited(visits_.before, i, i + 1);
    inputs = run(i, i + 1, std::move(inputs), context);
    visited(visits_.after, i, i + 1);
  }
  return inputs;
}

void Stage::visited(const std::function<void(int, int)>& visit, int first_layer, int last_layer) const {
  if (visit) visit(first_layer_ + first_layer, first_layer_ + last_layer);
}

model::Tensors Stage::forward(model::Tensors inputs, const model::ForwardContext& context) { return visit(0, num_layers(), std::move(inputs), context); }

void Stage::forward(Activation& activation, const model::ForwardContext& context) {
  const at::AutoGradMode grad_mode(true);
  if (checkpoint_layers_ == 0 && !visits_.before) {
    activation.outputs = run(0, num_layers(), activation.inputs, context);
    return;
  }
  const int length = std::max(1, checkpoint_layers_);
  // The graph of a segment is made, so that it is known which outputs want a gradient, and dropped when the next segment has its leaves.
  model::ForwardContext throw_away = context;
  throw_away.linear.weight_grads = nullptr;
  model::Tensors tensors = activation.inputs;
  for (int first = 0; first < num_layers(); first += length) {
    const int last = std::min(first + length, num_layers());
    Activation::Segment& segment = activation.segments.emplace_back(Activation::Segment{first, last, tensors, {}, {}});
    if (recomputes()) segment.random_states = random_states(device_);
    model::Tensors outputs = visit(first, last, std::move(tensors), recomputes() ? throw_away : context);
    tensors = as_leaves(outputs);
    if (!recomputes()) segment.outputs = std::move(outputs);
  }
  activation.outputs = std::move(tensors);
}

void Stage::backward(Activation& activation, const model::Tensors& output_gradients, const model::ForwardContext& context) {
  const at::AutoGradMode grad_mode(true);
  if (activation.segments.empty()) return run_backward(activation.outputs, output_gradients);
  model::Tensors gradients = output_gradients;
  for (auto segment = activation.segments.rbegin(); segment != activation.segments.rend(); ++segment) {
    visited(visits_.before, segment->first_layer, segment->last_layer);
    if (segment->outputs.empty()) {
      const ReplayedRandomness again(device_, segment->random_states);
      run_backward(run(segment->first_layer, segment->last_layer, segment->inputs, context), gradients);
    } else {
      run_backward(segment->outputs, gradients);
    }
    gradients = gradients_of(segment->inputs);
    segment->inputs.clear();
    segment->outputs.clear();
    visited(visits_.after, segment->first_layer, segment->last_layer);
  }
}

}  // namespace penstock::pipeline
