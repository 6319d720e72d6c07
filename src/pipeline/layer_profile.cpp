#include "pipeline/layer_profile.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "pipeline/microbatch.h"
#include "tensor/device.h"
#include "tensor/memory_meter.h"

namespace penstock::pipeline {
namespace {

int64_t bytes_of(const model::Tensors& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& t : tensors) bytes += static_cast<int64_t>(t.nbytes());
  return bytes;
}

// Forward and backward of one layer; adds the loss when `loss` is given. Returns the outputs.
model::Tensors run_once(model::Layer& layer, const model::Tensors& inputs, const ProfileRequest& request, bool with_loss, LayerProfile& profile) {
  const at::AutoGradMode grad_mode(true);
  model::ForwardContext context;
  context.linear.compute = request.compute;
  const int64_t start = now_us();
  const tensor::MemoryMeter meter;
  model::Tensors outputs = layer.forward(inputs, context);
  model::Tensors roots, gradients;
  if (with_loss && request.loss) {
    roots = {request.loss(outputs, on_device({&request.sample, 1}, request.device)[0].targets)};
    gradients = {at::ones_like(roots[0])};
  } else {
    for (const at::Tensor& t : outputs) {
      if (!t.requires_grad()) continue;
      roots.push_back(t);
      gradients.push_back(at::ones_like(t));
    }
  }
  tensor::synchronize(request.device);
  const int64_t forwarded = now_us();
  profile.activation_bytes = std::max<int64_t>(0, meter.live_bytes() - bytes_of(gradients));
  if (!roots.empty()) torch::autograd::backward(roots, gradients);
  tensor::synchronize(request.device);
  const int64_t end = now_us();
  const auto shorter = [](double& best, int64_t time) { best = best == 0 ? static_cast<double>(time) : std::min(best, static_cast<double>(time)); };
  shorter(profile.forward_us, forwarded - start);
  shorter(profile.backward_us, end - forwarded);
  return outputs;
}

}  // namespace

std::vector<LayerProfile> profile_layers(std::span<const model::LayerSpec> layers, const ProfileRequest& request) {
  std::vector<LayerProfile> profiles;
  model::Tensors inputs = on_device({&request.sample, 1}, request.device)[0].inputs;
  for (size_t i = 0; i < layers.size(); ++i) {
    model::SharedWeights shared;
    const auto layer = layers[i].build(shared);
    LayerProfile profile;
    for (model::Parameter& p : layer->parameters()) {
      model::initialize(p, request.seed);
      if (p.value.device() != request.device) p.value.set_data(p.value.detach().to(request.device));
      p.value.mutable_grad() = at::zeros_like(p.value);
      profile.parameter_bytes += static_cast<int64_t>(p.value.nbytes());
    }
    const bool last = i + 1 == layers.size();
    model::Tensors outputs = run_once(*layer, as_leaves(inputs), request, last, profile);
    profile.forward_us = profile.backward_us = 0;  // the first run warmed up
    for (int repeat = 0; repeat < request.repeats; ++repeat) outputs = run_once(*layer, as_leaves(inputs), request, last, profile);
    profile.output_bytes = bytes_of(outputs);
    inputs = as_leaves(outputs);
    profiles.push_back(profile);
  }
  return profiles;
}

}  // namespace penstock::pipeline
