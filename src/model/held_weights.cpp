#include "model/held_weights.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "base/error.h"

namespace penstock::model {
namespace {

constexpr int64_t kRowsPerTask = kernels::kTileRows;  // whole tiles: threads must not share one

kernels::QuantizedWeight quantized(const at::Tensor& values, kernels::BlockFormat format) {
  const int64_t rows = values.size(0), columns = values.size(1);
  kernels::QuantizedWeight out(columns, format, rows);
  const float* from = values.data_ptr<float>();
  at::parallel_for(0, (rows + kRowsPerTask - 1) / kRowsPerTask, 1, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kRowsPerTask, count = std::min(rows, end * kRowsPerTask) - first;
    out.set_values(first, count, from + first * columns);
  });
  return out;
}

}  // namespace

Quantization quantization(const std::string& name) {
  if (name == "none") return Quantization::kNone;
  if (name == "int8") return Quantization::kInt8;
  if (name == "int4") return Quantization::kInt4;
  throw error(Code::kInvalidArgument, "quantization: expected none, int8 or int4, found '{}'", name);
}

std::optional<kernels::BlockFormat> format_of(Quantization quantization, WeightUse use) {
  if (quantization == Quantization::kNone || use == WeightUse::kOther) return std::nullopt;
  if (quantization == Quantization::kInt8 || use == WeightUse::kTable) return kernels::BlockFormat::kInt8;
  return kernels::BlockFormat::kInt4Min;
}

void hold(Parameter& parameter, Quantization quantization, kernels::Compute compute, kernels::QuantizedWeights& into) {
  const at::NoGradGuard no_grad;
  parameter.value.requires_grad_(false);
  if (const auto format = format_of(quantization, parameter.use)) {
    if (!parameter.value.sum().isfinite().item<bool>()) {
      throw error(Code::kDataLoss, "{}: holds a value that is not finite; it cannot be quantized", parameter.name);
    }
    into.put(parameter.value, quantized(parameter.value, *format));
  } else if (compute == kernels::Compute::kBf16 && parameter.use != WeightUse::kOther) {
    parameter.value.set_data(parameter.value.to(at::kBFloat16));
  }
}

}  // namespace penstock::model
