#pragma once
// What a stage keeps of a micro-batch between its forward and its backward.
#include <vector>

#include "kernels/weight_grad_queue.h"
#include "model/layer.h"

namespace penstock::pipeline {

// Not movable once a forward has run: the graph points to `weight_grads`.
struct Activation {
  // Some consecutive layers whose backward pass is one of its own.
  struct Segment {
    int first_layer = 0, last_layer = 0;  // within the stage, [first, last)
    model::Tensors inputs;                // leaves
    model::Tensors outputs;               // with their graph; empty: they are computed again, and only their inputs are kept
    model::Tensors random_states;         // then: of the generators before the segment, so that dropout draws the same again
  };

  model::Tensors inputs;           // as they arrived: leaves
  model::Tensors outputs;          // with their graph; leaves when there are segments
  std::vector<Segment> segments;   // empty when the stage's backward pass is one
  kernels::WeightGradQueue weight_grads;

  void clear() {
    inputs.clear();
    outputs.clear();
    segments.clear();
  }
};

// The gradients of `tensors` that require one, in order; zeros where none came.
[[nodiscard]] model::Tensors gradients_of(const model::Tensors& tensors);

// New leaves with the same data that want a gradient where the given ones do.
[[nodiscard]] model::Tensors as_leaves(const model::Tensors& tensors);

}  // namespace penstock::pipeline
