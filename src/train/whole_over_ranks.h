#pragma once
// Parameters put together from the ranks that share them.
#include <ATen/core/Tensor.h>

#include "comm/communicator.h"
#include "model/layer.h"

namespace penstock::train {

// `parameter` with all of `value`, this rank's part of it or of a tensor of its shape: what is written under the stored names. A parameter that is not cut comes back with
// `value` as it is. Collective over `tensor`, the ranks that have the other parts, which may be null where nothing is cut.
[[nodiscard]] model::Parameter whole_over_ranks(const model::Parameter& parameter, const at::Tensor& value, comm::Communicator* tensor, Deadline deadline);

// A copy of its own on the CPU, for a file.
[[nodiscard]] at::Tensor host_copy(const at::Tensor& tensor);

// Elements of the whole.
[[nodiscard]] int64_t whole_elements(const model::Parameter& parameter);

}  // namespace penstock::train
