#include "base/crc32.h"

#include <zlib.h>

namespace penstock {

uint32_t crc32(std::span<const std::byte> bytes, uint32_t so_far) {
  return static_cast<uint32_t>(::crc32_z(so_far, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace penstock
