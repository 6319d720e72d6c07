#pragma once
// What a worker group holds while it exists: GPUs, or cores of its own on the CPU.
#include <string>
#include <vector>

#include "base/error.h"
#include "cluster/device_assignment.h"
#include "frontend/model_spec.h"

namespace penstock::frontend {

struct GroupResources {
  std::vector<std::string> devices;  // empty on CPU
  std::vector<std::string> cores;    // empty: the group runs on any core
};

// Takes parallelLevel GPUs, one for each rank of this machine (with parallelType custom all are its one process's); on the CPU torchrun.OMP_NUMBER_THREADS
// cores for each rank, if that was given and enough are free (too few: the log says so, and the group shares them all). deviceType auto takes GPUs where there are any. `group`: its number, for messages.
// Errors: kInvalidArgument (deviceType gpu without a GPU, bad deviceIds), kResourceExhausted (too few free GPUs); then nothing is held.
[[nodiscard]] Result<GroupResources> take_resources(const ModelSpec& spec, int group, cluster::DeviceAssignment& devices,
                                                    cluster::DeviceAssignment& cores);

// Gives back what one take_resources() gave.
void release_resources(const GroupResources& held, cluster::DeviceAssignment& devices, cluster::DeviceAssignment& cores);

}  // namespace penstock::frontend
