#include "model/held_weights.h"

#include <ATen/Parallel.h>

#include "base/error.h"
#include "model/whole_parameter.h"

namespace penstock::model {
namespace {

using Rows = kernels::QuantizedWeight::Rows;

constexpr int64_t kRowsPerTask = 16;
// So few stay float32: they stay in the processor's caches from token to token, and rounding them would save nothing.
constexpr int64_t kFewValues = 64 << 10;

kernels::QuantizedWeight quantized(const at::Tensor& values, const std::vector<Rows>& rows) {
  const int64_t columns = values.size(1);
  kernels::QuantizedWeight out(columns, rows);
  const float* from = values.data_ptr<float>();
  at::parallel_for(0, values.size(0), kRowsPerTask, [&](int64_t begin, int64_t end) { out.set_values(begin, end - begin, from + begin * columns); });
  return out;
}

// The blocks of ours that hold those of a file without loss, or with next to none.
kernels::BlockFormat format_of(formats::GgmlType type) {
  switch (type) {
    case formats::GgmlType::kQ4_0: return kernels::BlockFormat::kInt4;
    case formats::GgmlType::kQ4_1:
    case formats::GgmlType::kQ4_K: return kernels::BlockFormat::kInt4Min;
    default: return kernels::BlockFormat::kInt8;
  }
}

// Blocks lie along the columns, and what a file has in blocks stays in the same ones.
void require_whole_blocks(const Parameter& parameter, const StoredRows& part) {
  if (part.cut.whole == 0 || part.cut.dim != 1) return;
  const int64_t first = part.cut.first, end = first + parameter.value.size(1);
  const auto in_block = [&](int64_t column) { return column != part.cut.whole && column % kernels::kBlockValues != 0; };
  if (!in_block(first) && !in_block(end)) return;
  throw error(Code::kUnimplemented,
              "{}: this tensor rank has columns {} to {} of {}, which cut a block of {} quantized columns of the file; use another number of tensor ranks, or "
              "handler.quantization: int8, int4 or none",
              parameter.name, first, end - 1, part.cut.whole, kernels::kBlockValues);
}

// Of the parameter on all ranks that share it: whether it is rounded must not depend on their number.
int64_t whole_values(const Parameter& parameter) {
  if (!parameter.is_cut()) return parameter.value.numel();
  const WholeParameter whole(parameter);
  int64_t values = 1;
  for (const int64_t size : whole.shape()) values *= size;
  return values;
}

std::vector<Rows> as_stored(const Parameter& parameter, const StoredBlocks& stored) {
  std::vector<Rows> rows;
  for (const StoredRows& part : parameter.stored) {
    const auto type = stored ? stored(part) : std::nullopt;
    if (!type) return {};
    require_whole_blocks(parameter, part);
    rows.push_back({format_of(*type), part.end - part.begin});
  }
  return rows;
}

}  // namespace

Quantization quantization(const std::string& name) {
  if (name == "none") return Quantization::kNone;
  if (name == "auto") return Quantization::kAsStored;
  if (name == "int8") return Quantization::kInt8;
  if (name == "int4") return Quantization::kInt4;
  throw error(Code::kInvalidArgument, "quantization: expected auto, none, int8 or int4, found '{}'", name);
}

std::vector<Rows> held_rows(const Parameter& parameter, Quantization quantization, const StoredBlocks& stored) {
  if (quantization == Quantization::kNone || parameter.use == WeightUse::kOther) return {};
  if (quantization == Quantization::kAsStored) return as_stored(parameter, stored);
  const bool is_int8 = quantization == Quantization::kInt8 || parameter.use == WeightUse::kTable;
  return {{is_int8 ? kernels::BlockFormat::kInt8 : kernels::BlockFormat::kInt4Min, parameter.value.size(0)}};
}

void hold(Parameter& parameter, Quantization quantization, kernels::Compute compute, const StoredBlocks& stored, kernels::QuantizedWeights& into) {
  const at::NoGradGuard no_grad;
  parameter.value.requires_grad_(false);
  const auto rows = held_rows(parameter, quantization, stored);
  if (!rows.empty()) {
    if (!parameter.value.sum().isfinite().item<bool>()) {
      throw error(Code::kDataLoss, "{}: holds a value that is not finite; it cannot be quantized", parameter.name);
    }
    into.put(parameter.value, quantized(parameter.value, rows));
  } else if (compute == kernels::Compute::kBf16 && parameter.use != WeightUse::kOther && whole_values(parameter) >= kFewValues) {
    parameter.value.set_data(parameter.value.to(at::kBFloat16));
  }
}

void move_to(const at::Device& device, Parameter& parameter, kernels::Compute compute) {
  const at::NoGradGuard no_grad;
  parameter.value.requires_grad_(false);
  const bool rounds = compute == kernels::Compute::kBf16 && parameter.use != WeightUse::kOther;
  parameter.value.set_data(parameter.value.to(device, rounds ? at::kBFloat16 : at::kFloat));
}

}  // namespace penstock::model
