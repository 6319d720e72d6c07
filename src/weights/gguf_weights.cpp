#include "weights/gguf_weights.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>

#include "base/error.h"

namespace penstock::weights {
namespace {

using formats::GgmlType;

constexpr int64_t kRowsATask = 16;

// float32 [rows, ...] of the blocks.
Tensor dequantized(GgmlType type, std::span<const std::byte> blocks, const std::vector<int64_t>& shape) {
  Tensor values = at::empty(shape, at::kFloat);
  const int64_t columns = shape.back(), rows = values.numel() / columns;
  const auto row_bytes = blocks.size() / static_cast<size_t>(rows);
  float* out = values.data_ptr<float>();
  at::parallel_for(0, rows, kRowsATask, [&](int64_t begin, int64_t end) {
    const auto first = static_cast<size_t>(begin), count = static_cast<size_t>(end - begin);
    formats::dequantize(type, blocks.subspan(first * row_bytes, count * row_bytes), {out + begin * columns, count * static_cast<size_t>(columns)});
  });
  return values;
}

at::ScalarType dtype_of(GgmlType type) {
  if (type == GgmlType::kF16) return at::kHalf;
  return type == GgmlType::kBF16 ? at::kBFloat16 : at::kFloat;
}

}  // namespace

std::vector<std::string> GgufWeights::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : model_.entries()) names.push_back(name);
  return names;
}

std::optional<formats::GgmlType> GgufWeights::block_type(const std::string& name) const {
  const auto found = model_.entries().find(name);
  if (found == model_.entries().end() || formats::is_float_type(found->second.tensor->type)) return std::nullopt;
  return found->second.tensor->type;
}

Tensor GgufWeights::tensor(const std::string& name) const {
  const auto found = model_.entries().find(name);
  if (found == model_.entries().end()) throw error(Code::kNotFound, "{} holds no tensor '{}'", model_.path().string(), name);
  const auto& [stored, place] = found->second;
  std::vector<std::byte> storage;
  const auto bytes = model_.rows(found->second, storage);
  Tensor values;
  if (!formats::is_float_type(stored->type)) {
    values = dequantized(stored->type, bytes, stored->shape);
  } else if (storage.empty() && reinterpret_cast<uintptr_t>(bytes.data()) % 4 == 0) {
    values = at::from_blob(const_cast<std::byte*>(bytes.data()), stored->shape, [map = model_.map()](void* /*data*/) {}, at::TensorOptions(dtype_of(stored->type)));
  } else {
    values = at::empty(stored->shape, at::TensorOptions(dtype_of(stored->type)));
    std::memcpy(values.data_ptr(), bytes.data(), bytes.size());
  }
  return place.transposed ? values.t() : values;
}

}  // namespace penstock::weights
