#pragma once
// What LibTorch allocates on the CPU, counted for one thread.
#include <cstdint>
#include <memory>

namespace penstock::tensor {

// Counts from its construction to its destruction, on the thread that made it. Meters may nest; the inner one then counts alone.
class MemoryMeter {
 public:
  MemoryMeter();
  ~MemoryMeter();
  MemoryMeter(const MemoryMeter&) = delete;
  MemoryMeter& operator=(const MemoryMeter&) = delete;

  [[nodiscard]] int64_t live_bytes() const;   // allocated since and not freed; memory from before that is freed counts negative
  [[nodiscard]] int64_t peak_bytes() const;   // the most that were live
  [[nodiscard]] int64_t allocations() const;  // how many

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::tensor
