#pragma once
// The checksum of checkpoints: CRC-32 as in zlib, gzip and PNG.
#include <cstddef>
#include <cstdint>
#include <span>

namespace penstock {

// `so_far`: the checksum of the bytes before these; 0 at the beginning.
[[nodiscard]] uint32_t crc32(std::span<const std::byte> bytes, uint32_t so_far = 0);

}  // namespace penstock
