#include "formats/float_narrowing.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/error.h"

namespace penstock::formats {
namespace {

uint16_t to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;  // NaN
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

// `value` >> `shift`, rounded to nearest, ties to even.
uint32_t rounded_shift(uint32_t value, uint32_t shift) {
  if (shift > 31) return 0;
  const uint32_t kept = value >> shift, rest = value & ((1U << shift) - 1), half = 1U << (shift - 1);
  return kept + (rest > half || (rest == half && (kept & 1) != 0) ? 1 : 0);
}

uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t size = bits & 0x7FFFFFFF;
  if (size > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00);
  if (size >= 0x47800000) return static_cast<uint16_t>(sign | 0x7C00);  // 65536 and above
  const uint32_t exponent = size >> 23, fraction = (size & 0x7FFFFF) | 0x800000;
  // Below 2^-14 the result has no leading one: the fraction moves right. A carry out of the fraction makes the next exponent, or infinity.
  if (exponent < 113) return static_cast<uint16_t>(sign | rounded_shift(fraction, 126 - exponent));
  return static_cast<uint16_t>(sign | rounded_shift(size - (112U << 23), 13));
}

}  // namespace

std::vector<std::byte> narrowed(std::span<const std::byte> floats, const std::string& dtype) {
  PENSTOCK_CHECK(floats.size() % 4 == 0 && (dtype == "F16" || dtype == "BF16"), "{} bytes of float32 to {}", floats.size(), dtype);
  const auto narrow = dtype == "BF16" ? to_bf16 : to_f16;
  std::vector<std::byte> out(floats.size() / 2);
  for (size_t i = 0; i < floats.size() / 4; ++i) {
    float value = 0;
    std::memcpy(&value, floats.data() + 4 * i, 4);
    const uint16_t bits = narrow(value);
    std::memcpy(out.data() + 2 * i, &bits, 2);
  }
  return out;
}

}  // namespace penstock::formats
