#pragma once
// The element types of GGUF files that we read: floats, and blocks of small integers with their scales.
// Layouts: https://github.com/ggml-org/llama.cpp, ggml-common.h.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::formats {

enum class GgmlType : uint32_t { kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8, kQ4_K = 12, kQ5_K = 13, kQ6_K = 14, kBF16 = 30 };

// The type of that number; nullopt for one that we do not read.
[[nodiscard]] std::optional<GgmlType> ggml_type(uint32_t number);
// "Q4_K"; of a type that we do not read as well, and "77" for a number that is none.
[[nodiscard]] std::string ggml_type_name(uint32_t number);
[[nodiscard]] inline std::string ggml_type_name(GgmlType type) { return ggml_type_name(static_cast<uint32_t>(type)); }
// "F32, F16, ...": what we read.
[[nodiscard]] std::string known_ggml_types();

// Values in one block (1 for floats), and its bytes. Blocks lie along a row.
[[nodiscard]] int64_t block_values(GgmlType type);
[[nodiscard]] uint64_t block_bytes(GgmlType type);
[[nodiscard]] inline bool is_float_type(GgmlType type) { return block_values(type) == 1; }

// The values of whole blocks. REQUIRES: as many blocks as `values` need.
void dequantize(GgmlType type, std::span<const std::byte> blocks, std::span<float> values);

// Whole blocks of F32, F16, BF16, Q8_0 or Q4_0, rounded as llama.cpp rounds: floats to nearest, Q8_0 by the largest value of a block, Q4_0 so
// that the value of largest size becomes -8. REQUIRES: one of these types, whole blocks of values, all finite.
[[nodiscard]] std::vector<std::byte> quantize(GgmlType type, std::span<const float> values);

}  // namespace penstock::formats
