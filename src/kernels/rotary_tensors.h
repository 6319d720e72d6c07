#pragma once
// A rotary table as tensors on a device.
#include <ATen/core/Tensor.h>

#include "kernels/rotary.h"

namespace penstock::kernels {

struct RotaryTensors {
  at::Tensor cos, sin;  // [max_positions, K/2] float32
};

// Copied to the device when they are asked for first, and kept there as long as the table. Threads: any.
[[nodiscard]] RotaryTensors rotary_tensors(const RotaryTable& table, const at::Device& device);

}  // namespace penstock::kernels
