#include "cluster/device_assignment.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <set>

#include "cluster/core_sets.h"

namespace penstock::cluster {
namespace {

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

// CUDA takes a number below the count of GPUs, or the start of a UUID.
bool is_device(std::string_view name, int num_gpus) {
  if (name.rfind("GPU-", 0) == 0 || name.rfind("MIG-", 0) == 0) return true;
  int number = 0;
  if (!all_digits(name) || std::from_chars(name.data(), name.data() + name.size(), number).ec != std::errc()) return false;
  return number < num_gpus;
}

// The list as CUDA reads it: up to the first entry that is no device, and nothing at all when a device is listed twice.
std::vector<std::string> inherited_devices(std::string_view list, int num_gpus) {
  std::vector<std::string> devices;
  std::set<std::string_view> seen;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::string_view name = trimmed(list.substr(0, comma));
    if (!is_device(name, num_gpus)) break;
    if (!seen.insert(name).second) return {};
    devices.emplace_back(name);
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return devices;
}

}  // namespace

int count_gpus(const std::filesystem::path& driver_folder, const std::filesystem::path& device_folder) {
  std::error_code none;
  int count = 0;
  for (std::filesystem::directory_iterator at(driver_folder, none), end; !none && at != end; at.increment(none)) ++count;
  if (count > 0) return count;
  constexpr std::string_view kPrefix = "nvidia";
  for (std::filesystem::directory_iterator at(device_folder, none), end; !none && at != end; at.increment(none)) {
    const std::string name = at->path().filename().string();
    if (name.rfind(kPrefix, 0) == 0 && all_digits(std::string_view(name).substr(kPrefix.size()))) ++count;
  }
  return count;
}

std::vector<std::string> visible_devices(const config::Environment& environment) {
  const auto emulated = environment("PENSTOCK_TEST_DEVICES");
  if (!emulated) return visible_devices(environment, count_gpus());
  constexpr int kMost = 1024;
  int num_gpus = 0;
  const char* end = emulated->data() + emulated->size();
  const auto read = std::from_chars(emulated->data(), end, num_gpus);
  if (read.ec != std::errc() || read.ptr != end || num_gpus < 0 || num_gpus > kMost) {
    throw error(Code::kInvalidArgument, "PENSTOCK_TEST_DEVICES: expected a number from 0 to {}, found '{}'", kMost, *emulated);
  }
  return visible_devices(environment, num_gpus);
}

std::vector<std::string> visible_devices(const config::Environment& environment, int num_gpus) {
  if (num_gpus == 0) return {};
  if (const auto inherited = environment("CUDA_VISIBLE_DEVICES")) return inherited_devices(*inherited, num_gpus);
  std::vector<std::string> devices;
  for (int device = 0; device < num_gpus; ++device) devices.push_back(fmt::to_string(device));
  return devices;
}

std::vector<std::string> core_names() {
  std::vector<std::string> names;
  for (const int core : usable_cores()) names.push_back(fmt::to_string(core));
  return names;
}

int visible_device_count(const config::Environment& environment) { return static_cast<int>(visible_devices(environment).size()); }

DeviceAssignment::DeviceAssignment(std::vector<std::string> devices) : devices_(std::move(devices)), used_(devices_.size(), false) {}

Result<std::vector<std::string>> DeviceAssignment::acquire(int count, std::span<const int> among) {
  PENSTOCK_CHECK(count >= 0, "asked for {} devices", count);
  std::vector<size_t> candidates(devices_.size());
  std::iota(candidates.begin(), candidates.end(), size_t{0});
  if (!among.empty()) candidates.clear();
  for (const int id : among) {
    if (id < 0 || id >= num_devices()) {
      return error(Code::kInvalidArgument, "deviceIds: expected GPUs from 0 to {}, found {}: this server has {}", num_devices() - 1, id,
                   num_devices());
    }
    candidates.push_back(static_cast<size_t>(id));
  }

  MutexLock lock(mutex_);
  const auto start = std::find_if(candidates.begin(), candidates.end(), [&](size_t device) REQUIRES(mutex_) { return device >= next_; });
  std::rotate(candidates.begin(), start, candidates.end());
  std::vector<size_t> taken;
  for (const size_t device : candidates) {
    const bool twice = std::find(taken.begin(), taken.end(), device) != taken.end();
    if (!used_[device] && !twice && taken.size() < static_cast<size_t>(count)) taken.push_back(device);
  }
  if (taken.size() < static_cast<size_t>(count)) {
    return error(Code::kResourceExhausted,
                 "not enough free GPUs for a worker: expected {}, found {} free of {}; stop a worker or lower parallelLevel", count,
                 taken.size(), candidates.size());
  }
  if (!taken.empty()) next_ = (taken.back() + 1) % devices_.size();
  std::sort(taken.begin(), taken.end());
  std::vector<std::string> names;
  for (const size_t device : taken) {
    used_[device] = true;
    names.push_back(devices_[device]);
  }
  return names;
}

void DeviceAssignment::release(std::span<const std::string> devices) {
  MutexLock lock(mutex_);
  for (const std::string& name : devices) {
    const auto found = std::find(devices_.begin(), devices_.end(), name);
    const auto device = static_cast<size_t>(found - devices_.begin());
    PENSTOCK_CHECK(found != devices_.end() && used_[device], "GPU '{}' is given back but was not taken", name);
    used_[device] = false;
  }
}

int DeviceAssignment::num_free() const {
  MutexLock lock(mutex_);
  return static_cast<int>(std::count(used_.begin(), used_.end(), false));
}

std::string device_list(std::span<const std::string> devices) { return fmt::format("{}", fmt::join(devices, ",")); }

}  // namespace penstock::cluster
