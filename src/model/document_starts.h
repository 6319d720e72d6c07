#pragma once
// Rows of a training batch that hold several documents which must not see each other. A second tensor, [B, T] int32, says where in its row the
// document of each position begins (kernels/attention.h); it enters beside the token ids and passes through all layers but the head.
#include <utility>

#include "model/layer.h"

namespace penstock::model {

// Undefined: each row is one document.
[[nodiscard]] inline at::Tensor starts_of(const Tensors& inputs) { return inputs.size() > 1 ? inputs[1] : at::Tensor(); }

// A layer's output, and the starts that came in.
[[nodiscard]] inline Tensors with_starts(at::Tensor output, const Tensors& inputs) {
  return inputs.size() > 1 ? Tensors{std::move(output), inputs[1]} : Tensors{std::move(output)};
}

}  // namespace penstock::model
