#pragma once
// The names that element types go by: our options, Hugging Face's torch_dtype, and safetensors' headers.
#include <cstdint>
#include <optional>
#include <string_view>

namespace c10 {
enum class ScalarType : int8_t;  // complete enough to pass around; enumerators are in <c10/core/ScalarType.h>
}

namespace penstock::tensor {

using c10::ScalarType;

// "fp32", "bf16": what --precision and config files say. nullopt for anything else.
[[nodiscard]] std::optional<ScalarType> parse_precision(std::string_view name);

// "float32", "bfloat16", "float16": torch_dtype in config.json. nullopt for anything else.
[[nodiscard]] std::optional<ScalarType> parse_torch_dtype(std::string_view name);

// "F32", "BF16", "F16", "F64", "I64", "I32", "U8": the dtypes of safetensors that Penstock reads. nullopt for anything else.
[[nodiscard]] std::optional<ScalarType> parse_safetensors_dtype(std::string_view name);

// The reverse. Throws Error kUnimplemented for a dtype that has no such name.
[[nodiscard]] std::string_view precision_name(ScalarType dtype);
[[nodiscard]] std::string_view torch_dtype_name(ScalarType dtype);
[[nodiscard]] std::string_view safetensors_dtype_name(ScalarType dtype);

}  // namespace penstock::tensor
