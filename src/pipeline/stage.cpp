#include "pipeline/stage.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::pipeline {

Stage::Stage(std::span<const model::LayerSpec> specs, std::span<const int> boundaries, int index)
    : index_(index), num_stages_(static_cast<int>(boundaries.size()) - 1), first_layer_(boundaries[static_cast<size_t>(index)]) {
  PENSTOCK_CHECK(boundaries.front() == 0 && boundaries.back() == static_cast<int>(specs.size()),
                 "the stages cover layers {} to {}, the model has {}", boundaries.front(), boundaries.back(), specs.size());
  model::SharedWeights shared;
  for (int i = first_layer_; i < boundaries[static_cast<size_t>(index) + 1]; ++i) {
    layers_.push_back(specs[static_cast<size_t>(i)].build(shared));
    for (model::Parameter& p : layers_.back()->parameters()) {
      const bool known = std::any_of(parameters_.begin(), parameters_.end(), [&](const auto& q) { return q.value.is_same(p.value); });
      if (!known) parameters_.push_back(std::move(p));
    }
  }
}

model::Tensors Stage::forward(model::Tensors inputs, const model::ForwardContext& context) {
  for (auto& layer : layers_) inputs = layer->forward(inputs, context);
  return inputs;
}

}  // namespace penstock::pipeline
