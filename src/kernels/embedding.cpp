#include "kernels/embedding.h"

#include "kernels/quantized_linear.h"

namespace penstock::kernels {

Tensor embedding(const Tensor& table, const Tensor& ids, const LinearOptions& options) {
  if (options.quantized != nullptr) {
    if (const QuantizedWeight* quantized = options.quantized->find(table)) return quantized_rows_of(*quantized, ids);
  }
  return at::embedding(table, ids).to(at::kFloat);
}

}  // namespace penstock::kernels
