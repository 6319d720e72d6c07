#pragma once
// A step plan as tensors for the wire. A receiver does not know how long a plan is: a piece of fixed length comes first and says whether a second one follows.
#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "engine/step_plan.h"

namespace penstock::engine {

// One or two tensors, int64.
[[nodiscard]] std::vector<at::Tensor> to_pieces(const StepPlan& plan);

// `receive` fills a tensor of the length that the next piece has. Throws what it throws, and Error kInternal for what is no plan.
[[nodiscard]] StepPlan from_pieces(const std::function<void(at::Tensor& piece, bool is_first)>& receive, int max_sequences);

}  // namespace penstock::engine
