#pragma once
// Whether the weights of a stage fit into memory, asked before any is loaded.
#include <c10/core/Device.h>

#include <cstdint>
#include <optional>

#include "base/error.h"
#include "kernels/compute.h"
#include "model/held_weights.h"

namespace penstock::engine {

// Bytes that so many weights take at least, in the form in which a stage holds them (model/held_weights.h).
[[nodiscard]] int64_t least_weight_bytes(int64_t num_weights, model::Quantization quantization, kernels::Compute compute);

// kResourceExhausted: what is needed on this device, what there is (bytes), what to try.
[[nodiscard]] Error too_little_weight_memory(int64_t needed, int64_t available, const at::Device& device);

// That, when they need more than is `available` (absent = not known).
[[nodiscard]] std::optional<Error> check_weight_memory(int64_t needed, std::optional<int64_t> available, const at::Device& device);

}  // namespace penstock::engine
