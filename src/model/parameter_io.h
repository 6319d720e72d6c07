#pragma once
// Parameters to and from the names and shapes that checkpoints use.
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/layer.h"

namespace penstock::model {

// A stored tensor by name, any float dtype; throws Error when there is none.
using TensorLookup = std::function<at::Tensor(const std::string& name)>;

// Fills every parameter (or another tensor of its shape, such as an optimizer state) from its stored parts, converted to float32; a cut one from this rank's
// part of them.
// Throws Error kDataLoss naming the tensor with the expected and the found shape.
void load_parameter(const Parameter& parameter, at::Tensor& into, const TensorLookup& lookup);

// The stored parts of `values` (a parameter's value or a tensor of its shape) under their names: views, not copies. REQUIRES: it is not cut (whole_parameter.h).
[[nodiscard]] std::vector<std::pair<std::string, at::Tensor>> stored_parts(const Parameter& parameter, const at::Tensor& values);

}  // namespace penstock::model
