#include "tensor/memory_meter.h"

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <torch/version.h>

#include <algorithm>

namespace penstock::tensor {
namespace {

#if TORCH_VERSION_MAJOR >= 2
using TotalBytes = size_t;
#else
using TotalBytes = int64_t;
#endif

// LibTorch's CPU allocator reports to whoever stands in the profiler's place.
struct Counter : c10::MemoryReportingInfoBase {
  void reportMemoryUsage(void*, int64_t bytes, TotalBytes, TotalBytes, c10::Device) override {
    live += bytes;
    peak = std::max(peak, live);
    allocations += bytes > 0 ? 1 : 0;
  }
  bool memoryProfilingEnabled() const override { return true; }

  int64_t live = 0, peak = 0, allocations = 0;
};

}  // namespace

struct MemoryMeter::Impl {
  std::shared_ptr<Counter> counter = std::make_shared<Counter>();
  c10::DebugInfoGuard guard{c10::DebugInfoKind::PROFILER_STATE, counter};
};

MemoryMeter::MemoryMeter() : impl_(std::make_unique<Impl>()) {}
MemoryMeter::~MemoryMeter() = default;
int64_t MemoryMeter::live_bytes() const { return impl_->counter->live; }
int64_t MemoryMeter::peak_bytes() const { return impl_->counter->peak; }
int64_t MemoryMeter::allocations() const { return impl_->counter->allocations; }

}  // namespace penstock::tensor
