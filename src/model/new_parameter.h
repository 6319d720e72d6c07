#pragma once
// Parameters as layers make them. Private to src/model.
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/layer.h"

namespace penstock::model {

[[nodiscard]] at::Tensor new_weight(at::IntArrayRef shape);
// Undefined unless the model has it.
[[nodiscard]] at::Tensor optional_weight(bool has, at::IntArrayRef shape);

// The parameter, marked with what reads it.
[[nodiscard]] Parameter used_as(WeightUse use, Parameter parameter);

// Stored under its own name, as it is. A matrix decays and starts as noise; a vector does neither: a norm starts as ones ...
[[nodiscard]] Parameter whole(const std::string& name, const at::Tensor& value, double init_std);
// ... and a bias as zeros. `stored` where its rows have names of their own.
[[nodiscard]] Parameter bias_of(const std::string& name, const at::Tensor& value, std::vector<StoredRows> stored = {});

}  // namespace penstock::model
