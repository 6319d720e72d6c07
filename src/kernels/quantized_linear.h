#pragma once
// Quantized weights where layers hold tensors: products and looked-up rows.
#include <cstdint>
#include <map>
#include <memory>

#include "kernels/quantized_weight.h"
#include "tensor/tensor_fwd.h"

namespace penstock::kernels {

// Which of a model's weights are quantized. A layer keeps its tensor as a name and a shape for the weight; put() empties its storage.
//
// Threads: filled by one; then read by any. The tensors must outlive it.
class QuantizedWeights {
 public:
  // REQUIRES: weight [rows, columns] of the quantized weight's shape, no gradient wanted.
  void put(Tensor& weight, QuantizedWeight quantized);
  // Null for a weight that is not quantized.
  [[nodiscard]] const QuantizedWeight* find(const Tensor& weight) const;
  [[nodiscard]] int64_t bytes() const;
  [[nodiscard]] bool empty() const { return weights_.empty(); }

 private:
  std::map<const void*, QuantizedWeight> weights_;  // by the identity of the tensor
};

// x [..., D] float32 -> [..., O] float32. No gradients.
[[nodiscard]] Tensor quantized_linear(const Tensor& x, const QuantizedWeight& weight);

// ids [...] int64 -> [..., D] float32: rows of a table.
[[nodiscard]] Tensor quantized_rows_of(const QuantizedWeight& table, const Tensor& ids);

}  // namespace penstock::kernels
