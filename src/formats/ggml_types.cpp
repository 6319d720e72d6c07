#include "formats/ggml_types.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/float_narrowing.h"

namespace penstock::formats {
namespace {

// Every type that a file may have, by number; empty: none has it (any more).
constexpr std::array<std::string_view, 40> kNames = {
    "F32",     "F16",     "Q4_0",  "Q4_1",   "",      "",      "Q5_0",    "Q5_1",   "Q8_0",   "Q8_1",  "Q2_K", "Q3_K", "Q4_K",
    "Q5_K",    "Q6_K",    "Q8_K",  "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS", "I8",   "I16",
    "I32",     "I64",     "F64",   "IQ1_M",  "BF16",  "",      "",        "",       "TQ1_0",  "TQ2_0", "",     "",     "",
    "MXFP4"};

struct Layout {
  GgmlType type;
  int64_t values;
  uint64_t bytes;
};
constexpr Layout kLayouts[] = {{GgmlType::kF32, 1, 4},    {GgmlType::kF16, 1, 2},    {GgmlType::kBF16, 1, 2},    {GgmlType::kQ8_0, 32, 34},
                               {GgmlType::kQ4_0, 32, 18}, {GgmlType::kQ4_1, 32, 20},
                               {GgmlType::kQ5_0, 32, 22}, {GgmlType::kQ5_1, 32, 24}, {GgmlType::kQ4_K, 256, 144}, {GgmlType::kQ5_K, 256, 176},
                               {GgmlType::kQ6_K, 256, 210}};

const Layout& layout_of(GgmlType type) {
  const auto* found = std::ranges::find(kLayouts, type, &Layout::type);
  PENSTOCK_CHECK(found != std::end(kLayouts), "type {}", static_cast<uint32_t>(type));
  return *found;
}

uint8_t byte_at(const std::byte* block, size_t index) { return std::to_integer<uint8_t>(block[index]); }
int8_t signed_at(const std::byte* block, size_t index) { return static_cast<int8_t>(byte_at(block, index)); }

uint16_t half_bits_at(const std::byte* block, size_t index) {
  return static_cast<uint16_t>(byte_at(block, index) | byte_at(block, index + 1) << 8);
}

// IEEE half precision. Exact.
float from_f16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000U} << 16, exponent = (bits >> 10) & 0x1F, fraction = bits & 0x3FF;
  if (exponent == 0) {  // fraction times 2^-24
    const float size = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -size : size;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000 | fraction << 13);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

float half_at(const std::byte* block, size_t index) { return from_f16(half_bits_at(block, index)); }

void put_half(std::byte* block, float value) {
  const auto bits = narrowed(std::as_bytes(std::span(&value, 1)), "F16");
  std::memcpy(block, bits.data(), 2);
}

// d, 32 signed bytes: d * q.
void read_q8_0(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  for (size_t i = 0; i < 32; ++i) out[i] = d * static_cast<float>(signed_at(block, 2 + i));
}

// d, 32 nibbles, the lower ones first: d * (q - 8).
void read_q4_0(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  for (size_t i = 0; i < 16; ++i) {
    const int pair = byte_at(block, 2 + i);
    out[i] = d * static_cast<float>((pair & 15) - 8);
    out[i + 16] = d * static_cast<float>((pair >> 4) - 8);
  }
}

// d, m, 32 nibbles: d * q + m.
void read_q4_1(const std::byte* block, float* out) {
  const float d = half_at(block, 0), m = half_at(block, 2);
  for (size_t i = 0; i < 16; ++i) {
    const int pair = byte_at(block, 4 + i);
    out[i] = d * static_cast<float>(pair & 15) + m;
    out[i + 16] = d * static_cast<float>(pair >> 4) + m;
  }
}

// The fifth bits of 32 values stand in 4 bytes, the value's number is the bit's.
int fifth_bit(const std::byte* bits, size_t i) { return ((byte_at(bits, i / 8) >> (i % 8)) & 1) << 4; }

// d, fifth bits, 32 nibbles: d * (q - 16).
void read_q5_0(const std::byte* block, float* out) {
  const float d = half_at(block, 0);
  for (size_t i = 0; i < 16; ++i) {
    const int pair = byte_at(block, 6 + i);
    out[i] = d * static_cast<float>(((pair & 15) | fifth_bit(block + 2, i)) - 16);
    out[i + 16] = d * static_cast<float>(((pair >> 4) | fifth_bit(block + 2, i + 16)) - 16);
  }
}

// d, m, fifth bits, 32 nibbles: d * q + m.
void read_q5_1(const std::byte* block, float* out) {
  const float d = half_at(block, 0), m = half_at(block, 2);
  for (size_t i = 0; i < 16; ++i) {
    const int pair = byte_at(block, 8 + i);
    out[i] = d * static_cast<float>((pair & 15) | fifth_bit(block + 4, i)) + m;
    out[i + 16] = d * static_cast<float>((pair >> 4) | fifth_bit(block + 4, i + 16)) + m;
  }
}

// Q4_K and Q5_K keep 8 scales and 8 minima of 6 bits in 12 bytes.
struct Scale {
  int scale, minimum;
};
Scale scale_of(const std::byte* packed, size_t part) {
  if (part < 4) return {byte_at(packed, part) & 63, byte_at(packed, part + 4) & 63};
  const int low = byte_at(packed, part + 4);
  return {(low & 15) | (byte_at(packed, part - 4) >> 6) << 4, (low >> 4) | (byte_at(packed, part) >> 6) << 4};
}

// d, dmin, packed scales, of Q5_K 32 bytes whose bit N is the fifth bit of a value of part N, 256 nibbles. Parts of 32 values:
// d * scale * q - dmin * minimum; 32 bytes hold the nibbles of two parts.
template <bool kFiveBits>
void read_q4_k_or_q5_k(const std::byte* block, float* out) {
  const float d = half_at(block, 0), d_min = half_at(block, 2);
  for (size_t part = 0; part < 8; ++part) {
    const Scale s = scale_of(block + 4, part);
    const float scale = d * static_cast<float>(s.scale), minimum = d_min * static_cast<float>(s.minimum);
    const std::byte* nibbles = block + (kFiveBits ? 48 : 16) + 32 * (part / 2);
    const int shift = part % 2 == 0 ? 0 : 4;
    for (size_t i = 0; i < 32; ++i) {
      const int high = kFiveBits ? ((byte_at(block, 16 + i) >> part) & 1) << 4 : 0;
      out[32 * part + i] = scale * static_cast<float>(((byte_at(nibbles, i) >> shift) & 15) | high) - minimum;
    }
  }
}

// 128 bytes of lower nibbles, 64 bytes of upper pairs of bits, 16 signed scales, d: d * scale * (q - 32). Each half of the block has 4 runs of 32.
void read_q6_k(const std::byte* block, float* out) {
  const float d = half_at(block, 208);
  for (size_t half = 0; half < 2; ++half) {
    const std::byte *low = block + 64 * half, *high = block + 128 + 32 * half, *scales = block + 192 + 8 * half;
    for (size_t run = 0; run < 4; ++run) {
      const std::byte* nibbles = low + 32 * (run % 2);
      const int shift = run < 2 ? 0 : 4;
      for (size_t i = 0; i < 32; ++i) {
        const int q = ((byte_at(nibbles, i) >> shift) & 15) | ((byte_at(high, i) >> (2 * run)) & 3) << 4;
        out[128 * half + 32 * run + i] = d * static_cast<float>(signed_at(scales, 2 * run + i / 16)) * static_cast<float>(q - 32);
      }
    }
  }
}

void write_q8_0(const float* values, std::byte* block) {
  float largest = 0;
  for (size_t i = 0; i < 32; ++i) largest = std::max(largest, std::abs(values[i]));
  const float d = largest / 127, inverse = d == 0 ? 0 : 1 / d;
  put_half(block, d);
  for (size_t i = 0; i < 32; ++i) block[2 + i] = static_cast<std::byte>(static_cast<int8_t>(std::round(values[i] * inverse)));
}

void write_q4_0(const float* values, std::byte* block) {
  float largest = 0;  // by size, with its sign
  for (size_t i = 0; i < 32; ++i) {
    if (std::abs(values[i]) > std::abs(largest)) largest = values[i];
  }
  const float d = largest / -8, inverse = d == 0 ? 0 : 1 / d;
  put_half(block, d);
  const auto nibble = [&](float value) { return std::min(15, static_cast<int>(value * inverse + 8.5F)); };
  for (size_t i = 0; i < 16; ++i) block[2 + i] = static_cast<std::byte>(nibble(values[i]) | nibble(values[i + 16]) << 4);
}

template <typename Read>
void read_blocks(GgmlType type, std::span<const std::byte> blocks, std::span<float> values, Read read) {
  const Layout& layout = layout_of(type);
  const size_t count = values.size() / static_cast<size_t>(layout.values);
  for (size_t b = 0; b < count; ++b) read(blocks.data() + b * layout.bytes, values.data() + b * static_cast<size_t>(layout.values));
}

}  // namespace

std::optional<GgmlType> ggml_type(uint32_t number) {
  const auto* found = std::ranges::find_if(kLayouts, [&](const Layout& l) { return static_cast<uint32_t>(l.type) == number; });
  return found == std::end(kLayouts) ? std::nullopt : std::optional(found->type);
}

std::string ggml_type_name(uint32_t number) {
  return number < kNames.size() && !kNames[number].empty() ? std::string(kNames[number]) : std::to_string(number);
}

std::string known_ggml_types() {
  std::string names;
  for (const Layout& layout : kLayouts) names += (names.empty() ? "" : ", ") + ggml_type_name(layout.type);
  return names;
}

int64_t block_values(GgmlType type) { return layout_of(type).values; }
uint64_t block_bytes(GgmlType type) { return layout_of(type).bytes; }

void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> values) {
  const Layout& layout = layout_of(type);
  PENSTOCK_CHECK(values.size() % static_cast<size_t>(layout.values) == 0 && blocks.size() == values.size() / static_cast<size_t>(layout.values) * layout.bytes,
                 "{} bytes of {} for {} values", blocks.size(), ggml_type_name(type), values.size());
  switch (type) {
    case GgmlType::kF32:
      if (!values.empty()) std::memcpy(values.data(), blocks.data(), blocks.size());
      return;
    case GgmlType::kF16:
      return read_blocks(type, blocks, values, [](const std::byte* in, float* out) { *out = half_at(in, 0); });
    case GgmlType::kBF16:
      return read_blocks(type, blocks, values, [](const std::byte* in, float* out) { *out = std::bit_cast<float>(uint32_t{half_bits_at(in, 0)} << 16); });
    case GgmlType::kQ8_0:
      return read_blocks(type, blocks, values, read_q8_0);
    case GgmlType::kQ4_0:
      return read_blocks(type, blocks, values, read_q4_0);
    case GgmlType::kQ4_1:
      return read_blocks(type, blocks, values, read_q4_1);
    case GgmlType::kQ5_0:
      return read_blocks(type, blocks, values, read_q5_0);
    case GgmlType::kQ5_1:
      return read_blocks(type, blocks, values, read_q5_1);
    case GgmlType::kQ4_K:
      return read_blocks(type, blocks, values, read_q4_k_or_q5_k<false>);
    case GgmlType::kQ5_K:
      return read_blocks(type, blocks, values, read_q4_k_or_q5_k<true>);
    case GgmlType::kQ6_K:
      return read_blocks(type, blocks, values, read_q6_k);
  }
}

std::vector<std::byte> quantize(GgmlType type, std::span<const float> values) {
  const std::span<const std::byte> floats = std::as_bytes(values);
  if (type == GgmlType::kF32) return {floats.begin(), floats.end()};
  if (type == GgmlType::kF16 || type == GgmlType::kBF16) return narrowed(floats, ggml_type_name(type));
  PENSTOCK_CHECK((type == GgmlType::kQ8_0 || type == GgmlType::kQ4_0) && values.size() % 32 == 0, "{} values to {}", values.size(), ggml_type_name(type));
  std::vector<std::byte> blocks(values.size() / 32 * block_bytes(type));
  const auto write = type == GgmlType::kQ8_0 ? write_q8_0 : write_q4_0;
  for (size_t b = 0; b < values.size() / 32; ++b) write(values.data() + 32 * b, blocks.data() + b * block_bytes(type));
  return blocks;
}

}  // namespace penstock::formats
