#pragma once
// In which form a serving stage holds the weights that it multiplies with.
#include <optional>
#include <string>

#include "kernels/compute.h"
#include "kernels/quantized_linear.h"
#include "model/layer.h"

namespace penstock::model {

enum class Quantization {
  kNone,
  kInt8,  // blocks of 32 with a scale, 8.5 bits a weight
  kInt4,  // 4 bits with a scale and a minimum, 5 bits a weight; tables of tokens and the head stay int8
};

// "none", "int8", "int4"; throws Error kInvalidArgument for another name.
[[nodiscard]] Quantization quantization(const std::string& name);

// The form of a weight of this use; nullopt = as floating point.
[[nodiscard]] std::optional<kernels::BlockFormat> format_of(Quantization quantization, WeightUse use);

// To be called for one parameter after the other, as soon as its float32 value is loaded: the value's storage is freed before the next is filled, so that
// loading needs little more memory than the held form. Rounds to blocks into `into`, or to bfloat16 where nothing is quantized and products are computed in it.
// Does nothing to parameters of other use. Values that are not finite throw Error kDataLoss naming the parameter, where they are quantized.
void hold(Parameter& parameter, Quantization quantization, kernels::Compute compute, kernels::QuantizedWeights& into);

}  // namespace penstock::model
