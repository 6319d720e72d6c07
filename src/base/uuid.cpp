#include "base/uuid.h"

#include <fmt/format.h>

#include <cstdint>
#include <random>

namespace penstock {

std::string make_uuid() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  const uint64_t high = (random() & ~0xF000ull) | 0x4000ull, low = (random() & ~(0xC000ull << 48)) | (0x8000ull << 48);
  return fmt::format("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", high >> 32, (high >> 16) & 0xFFFF, high & 0xFFFF, low >> 48, low & 0xFFFFFFFFFFFF);
}

}  // namespace penstock
