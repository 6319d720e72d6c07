#include "tensor/dtype.h"

#include <c10/core/ScalarType.h>

#include "base/error.h"

namespace penstock::tensor {
namespace {

struct Names {
  ScalarType dtype;
  std::string_view precision;
  std::string_view torch;
  std::string_view safetensors;
};

// Empty: no such name. torch_dtype names only what a model's weights may be.
constexpr Names kNames[] = {
    {ScalarType::Float, "fp32", "float32", "F32"},     {ScalarType::BFloat16, "bf16", "bfloat16", "BF16"},
    {ScalarType::Half, "", "float16", "F16"},          {ScalarType::Double, "", "float64", "F64"},
    {ScalarType::Long, "", "", "I64"},                 {ScalarType::Int, "", "", "I32"},
    {ScalarType::Byte, "", "", "U8"},
};

std::optional<ScalarType> parse(std::string_view name, std::string_view Names::*column) {
  for (const Names& names : kNames) {
    if (!name.empty() && names.*column == name) return names.dtype;
  }
  return std::nullopt;
}

std::string_view name_of(ScalarType dtype, std::string_view Names::*column, const char* what) {
  for (const Names& names : kNames) {
    if (names.dtype == dtype && !(names.*column).empty()) return names.*column;
  }
  throw error(Code::kUnimplemented, "dtype {} has no {}", c10::toString(dtype), what);
}

}  // namespace

std::optional<ScalarType> parse_precision(std::string_view name) { return parse(name, &Names::precision); }
std::optional<ScalarType> parse_torch_dtype(std::string_view name) { return parse(name, &Names::torch); }
std::optional<ScalarType> parse_safetensors_dtype(std::string_view name) { return parse(name, &Names::safetensors); }

std::string_view precision_name(ScalarType dtype) { return name_of(dtype, &Names::precision, "precision name; expected fp32 or bf16"); }
std::string_view torch_dtype_name(ScalarType dtype) { return name_of(dtype, &Names::torch, "torch_dtype name"); }
std::string_view safetensors_dtype_name(ScalarType dtype) {
  return name_of(dtype, &Names::safetensors, "safetensors name here; expected one of F32, BF16, F16, F64, I64, I32, U8");
}

}  // namespace penstock::tensor
