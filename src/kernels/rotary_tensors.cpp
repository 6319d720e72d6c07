#include "kernels/rotary_tensors.h"

#include "base/mutex.h"

namespace penstock::kernels {

struct RotaryTable::OnDevices {
  Mutex mutex;
  std::vector<RotaryTensors> copies GUARDED_BY(mutex);  // one for each device
};

std::shared_ptr<RotaryTable::OnDevices> RotaryTable::no_devices() { return std::make_shared<OnDevices>(); }

RotaryTensors rotary_tensors(const RotaryTable& table, const at::Device& device) {
  RotaryTable::OnDevices& known = *table.on_devices_;
  MutexLock lock(known.mutex);
  for (const RotaryTensors& copy : known.copies) {
    if (copy.cos.device() == device) return copy;
  }
  const auto copied = [&](const float* values) {
    return at::from_blob(const_cast<float*>(values), {table.max_positions(), table.half()}, at::kFloat).to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  };
  return known.copies.emplace_back(RotaryTensors{copied(table.cos(0)), copied(table.sin(0))});
}

}  // namespace penstock::kernels
