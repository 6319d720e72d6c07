#include "frontend/group_resources.h"

#include <utility>

#include "base/log.h"

namespace penstock::frontend {
namespace {

std::vector<std::string> take_cores(const ModelSpec& spec, int group, cluster::DeviceAssignment& cores) {
  const int threads = spec.config.torchrun.omp_num_threads;
  if (threads == 0) return {};
  const int wanted = spec.config.ranks_per_host() * threads;
  auto taken = cores.acquire(wanted);
  if (taken) return std::move(*taken);
  spdlog::warn("model '{}': worker group {} shares its cores with others: expected {} for itself ({} rank(s), OMP_NUMBER_THREADS {}), found {} free of {}",
               spec.name, group, wanted, spec.config.ranks_per_host(), threads, cores.num_free(), cores.num_devices());
  return {};
}

}  // namespace

// What was asked for and is not there is an error, never quietly the CPU.
Result<GroupResources> take_resources(const ModelSpec& spec, int group, cluster::DeviceAssignment& devices, cluster::DeviceAssignment& cores) {
  const config::ModelConfig& config = spec.config;
  const bool any = devices.num_devices() > 0;
  if (config.device_type == config::DeviceType::kGpu && !any) {
    return error(Code::kInvalidArgument, "model '{}': deviceType is gpu, but this machine shows no GPU; write deviceType: cpu", spec.name);
  }
  if (config.device_type == config::DeviceType::kCpu || !any) return GroupResources{{}, take_cores(spec, group, cores)};
  auto taken = devices.acquire(config.devices_per_host(), config.device_ids);
  if (taken) return GroupResources{std::move(*taken), {}};
  return error(taken.error().code(),
               "model '{}': worker group {} needs {} GPU(s): {}; lower minWorkers or parallelLevel, or write deviceType: cpu", spec.name, group,
               config.devices_per_host(), taken.error().message());
}

void release_resources(const GroupResources& held, cluster::DeviceAssignment& devices, cluster::DeviceAssignment& cores) {
  devices.release(held.devices);
  cores.release(held.cores);
}

}  // namespace penstock::frontend
