#pragma once
// In which form a serving stage holds the weights that it multiplies with.
#include <c10/core/Device.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "formats/ggml_types.h"
#include "kernels/compute.h"
#include "kernels/quantized_linear.h"
#include "model/layer.h"

namespace penstock::model {

enum class Quantization {
  kNone,
  kAsStored,  // in blocks like those that the file holds them in, without loss; floats stay floats
  kInt8,  // blocks of 32 with a scale, 8.5 bits a weight
  kInt4,  // 4 bits with a scale and a minimum, 5 bits a weight; tables of tokens and the head stay int8
};

// "none", "auto" (as stored), "int8", "int4"; throws Error kInvalidArgument for another name.
[[nodiscard]] Quantization quantization(const std::string& name);

// The blocks that a file holds a stored part of a parameter in; nullopt for floats.
using StoredBlocks = std::function<std::optional<formats::GgmlType>(const StoredRows& rows)>;

// The blocks that a parameter's rows are held in; empty = floating point. As stored: Q8_0 and Q6_K in kInt8, Q4_0 in kInt4, Q4_1 and Q4_K in kInt4Min;
// floating point, unless all rows are stored in blocks. Throws Error kUnimplemented as stored where this rank's columns begin or end within a block.
[[nodiscard]] std::vector<kernels::QuantizedWeight::Rows> held_rows(const Parameter& parameter, Quantization quantization, const StoredBlocks& stored);

// To be called for one parameter after the other, as soon as its float32 value is loaded: the value's storage is freed before the next is filled, so that
// loading needs little more memory than the held form. Rounds to blocks into `into`, or to bfloat16 where nothing is quantized and products are computed in it,
// but for matrices of fewer than 65,536 values: those are in the processor's caches, where rounding them saves nothing.
// Does nothing to parameters of other use. Values that are not finite throw Error kDataLoss naming the parameter, where they are quantized.
// `stored` may be empty: nothing is stored in blocks.
void hold(Parameter& parameter, Quantization quantization, kernels::Compute compute, const StoredBlocks& stored, kernels::QuantizedWeights& into);

// On a GPU, in place of hold(): moves the value there, rounded to bfloat16 where products are computed in it, however few its values are.
void move_to(const at::Device& device, Parameter& parameter, kernels::Compute compute);

}  // namespace penstock::model
