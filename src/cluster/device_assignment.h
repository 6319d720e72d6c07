#pragma once
// Which GPUs, and which cores, a worker group gets. Devices are tracked by who holds them, so none is ever handed out twice.
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "config/environment.h"

namespace penstock::cluster {

// The GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES takes: an inherited CUDA_VISIBLE_DEVICES as CUDA reads it
// ("6,7" gives "6" and "7"; cut at the first entry that is no device), else "0", "1", ... Needs no CUDA library.
// PENSTOCK_TEST_DEVICES=N, for tests of the front door: as on a machine with N GPUs.
[[nodiscard]] std::vector<std::string> visible_devices(const config::Environment& environment = config::process_environment());
// The same on a machine with `num_gpus` GPUs.
[[nodiscard]] std::vector<std::string> visible_devices(const config::Environment& environment, int num_gpus);
[[nodiscard]] int visible_device_count(const config::Environment& environment = config::process_environment());

// NVIDIA GPUs of the machine, counted in the driver's folder or, failing that, by their device files.
[[nodiscard]] int count_gpus(const std::filesystem::path& driver_folder = "/proc/driver/nvidia/gpus",
                             const std::filesystem::path& device_folder = "/dev");

// The cores that this process may run on, by number: for groups that get cores of their own.
[[nodiscard]] std::vector<std::string> core_names();

// Threads: every method may be called from any thread.
class DeviceAssignment {
 public:
  // `devices`: visible_devices(), perhaps shortened, or core_names(). Device i of a model-config.yaml is devices[i].
  explicit DeviceAssignment(std::vector<std::string> devices);

  // Takes `count` free devices, going round from the last one taken; in ascending order. `among` (deviceIds) restricts the choice;
  // empty = all.
  // Errors: kInvalidArgument for an id in `among` that is no device; kResourceExhausted with the counts when too few are free. They speak of GPUs.
  [[nodiscard]] Result<std::vector<std::string>> acquire(int count, std::span<const int> among = {}) EXCLUDES(mutex_);

  // Gives back what one acquire() gave.
  void release(std::span<const std::string> devices) EXCLUDES(mutex_);

  [[nodiscard]] int num_devices() const { return static_cast<int>(devices_.size()); }
  [[nodiscard]] int num_free() const EXCLUDES(mutex_);

 private:
  const std::vector<std::string> devices_;
  mutable Mutex mutex_;
  std::vector<bool> used_ GUARDED_BY(mutex_);
  size_t next_ GUARDED_BY(mutex_) = 0;
};

// "0,1,2,3", the value of CUDA_VISIBLE_DEVICES for a worker.
[[nodiscard]] std::string device_list(std::span<const std::string> devices);

}  // namespace penstock::cluster
