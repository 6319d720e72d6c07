#pragma once
// Weights as blocks of small integers that share a scale. The layouts are GGUF's, so that its blocks can be taken as they are:
// https://github.com/ggml-org/llama.cpp, ggml-common.h. Torch-free.
#include <cstddef>
#include <cstdint>

namespace penstock::kernels {

enum class BlockFormat {
  kInt8,     // Q8_0: scale, 32 × int8;                 value = scale · q
  kInt4,     // Q4_0: scale, 32 × 4 bits;               value = scale · (q − 8)
  kInt4Min,  // Q4_1: scale, minimum, 32 × 4 bits;      value = scale · q + minimum
};
inline constexpr int kNumBlockFormats = 3;

// Values of a block; they lie along a row. Scale and minimum are IEEE halves, little-endian. In 4-bit blocks the low halves of the 16 bytes are
// values 0 … 15, the high halves values 16 … 31.
inline constexpr int64_t kBlockValues = 32;
inline constexpr int64_t kBlockBytes[kNumBlockFormats] = {34, 18, 20};

[[nodiscard]] constexpr int64_t block_bytes(BlockFormat format) { return kBlockBytes[static_cast<int>(format)]; }
// Of a row of so many values; the last block may be partly empty.
[[nodiscard]] constexpr int64_t row_blocks(int64_t columns) { return (columns + kBlockValues - 1) / kBlockValues; }
[[nodiscard]] constexpr int64_t row_bytes(BlockFormat format, int64_t columns) { return row_blocks(columns) * block_bytes(format); }

// One row of values to blocks; what the last block lacks is zero. kInt8 keeps the largest value of a block exact but for its scale's rounding; the 4-bit
// formats try several scales and keep the one of least error. A value that is not finite makes its whole block NaN.
void quantize_row(BlockFormat format, const float* values, int64_t columns, std::byte* blocks);
void dequantize_row(BlockFormat format, const std::byte* blocks, int64_t columns, float* values);

// IEEE binary16, rounded to the nearest, ties to even.
[[nodiscard]] uint16_t half_of(float value);
[[nodiscard]] float float_of(uint16_t half);

}  // namespace penstock::kernels
