#pragma once
// bfloat16 as it is in memory, the upper half of a float. Private to src/kernels; torch-free.
#include <bit>
#include <cstdint>

namespace penstock::kernels {

using Bfloat16 = uint16_t;

inline float value_of(float value) { return value; }
inline float value_of(Bfloat16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

// To the nearest, ties to even; what is not a number stays none.
inline void round_to(float value, float& to) { to = value; }
inline void round_to(float value, Bfloat16& to) {
  const auto bits = std::bit_cast<uint32_t>(value);
  to = static_cast<Bfloat16>(value != value ? (bits >> 16) | 0x40 : (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

}  // namespace penstock::kernels
