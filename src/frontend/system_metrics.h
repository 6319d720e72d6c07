#pragma once
// Load of this machine: processors, memory, disk, GPUs. The parsers are pure; SystemSampler reads /proc and asks nvidia-smi.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"

namespace penstock::frontend {

// Of all processors since the machine started, in ticks.
struct CpuTimes {
  uint64_t busy = 0;
  uint64_t total = 0;
};

struct MemoryUse {
  double used_mb = 0;       // MiB
  double available_mb = 0;
  double percent = 0;       // used
};

struct DiskUse {
  double used_gb = 0;       // GiB
  double available_gb = 0;
  double percent = 0;       // used, of what users may use
};

struct GpuUse {
  std::string device;       // its number
  double percent = 0;       // of the time with work
  double memory_used_mb = 0;
  double memory_percent = 0;
};

struct SystemSample {
  std::optional<double> cpu_percent;  // busy since the last sample
  std::optional<MemoryUse> memory;
  std::optional<DiskUse> disk;        // of the root file system
  std::vector<GpuUse> gpus;
};

// Of /proc/stat; nullopt when its first line is not the sum over all processors.
[[nodiscard]] std::optional<CpuTimes> parse_cpu_times(std::string_view text);
// Of /proc/meminfo.
[[nodiscard]] std::optional<MemoryUse> parse_memory(std::string_view text);
// Lines "INDEX, UTILIZATION, MEMORY USED, MEMORY TOTAL" in percent and MiB; what is not such a line is left out.
[[nodiscard]] std::vector<GpuUse> parse_nvidia_smi(std::string_view text);

// Takes a sample at once and then every `interval`, and hands it to `take`, all in a thread of its own.
//
// Blocks: the destructor waits for a sample under way; nvidia-smi gets 5 s, then it is killed. Without it in PATH it is never asked again.
class SystemSampler {
 public:
  SystemSampler(seconds interval, std::function<void(const SystemSample&)> take);
  ~SystemSampler();
  SystemSampler(const SystemSampler&) = delete;
  SystemSampler& operator=(const SystemSampler&) = delete;

 private:
  void run() EXCLUDES(mutex_);
  [[nodiscard]] SystemSample sample();
  [[nodiscard]] std::vector<GpuUse> ask_gpus();

  const seconds interval_;
  const std::function<void(const SystemSample&)> take_;
  std::optional<CpuTimes> last_cpu_;  // with has_gpus_: its thread's
  bool has_gpus_ = true;
  Mutex mutex_;
  CondVar changed_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: it uses the members above
};

}  // namespace penstock::frontend
