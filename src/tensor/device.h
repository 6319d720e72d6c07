#pragma once
// Where a rank computes: the CPU, or a GPU where LibTorch was built for one. Asked at run time and without CUDA's headers: the same sources serve both.
#include <c10/core/Device.h>

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"

namespace penstock::tensor {

// Of this process: CUDA_VISIBLE_DEVICES counts. 0 where LibTorch or the machine has none.
[[nodiscard]] int num_gpus();

// "cpu"; "cuda", the GPU of this rank, counting round where there are fewer GPUs than ranks on the host; "cuda:N"; "auto", a GPU where there is one.
// kInvalidArgument for another name, kFailedPrecondition where there is no such GPU: why, and what to try.
[[nodiscard]] Result<at::Device> find_device(const std::string& name, int local_rank);

// Blocks until the device has done what this process has given it. Nothing to do for the CPU.
void synchronize(const at::Device& device);

// Products of bfloat16 are fast there: the CPU has instructions for them, a GPU is of compute capability 8 or newer.
[[nodiscard]] bool computes_in_bf16(const at::Device& device);

struct DeviceMemory {
  int64_t free = 0;   // bytes
  int64_t total = 0;
};

// Of a GPU, over all its processes. nullopt: the CPU (base/host_memory.h), or not known.
[[nodiscard]] std::optional<DeviceMemory> device_memory(const at::Device& device);

}  // namespace penstock::tensor
