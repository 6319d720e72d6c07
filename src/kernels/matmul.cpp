#include "kernels/matmul.h"

#include <dnnl.h>

#include "base/error.h"

namespace penstock::kernels {

void sgemm(Transpose a_op, Transpose b_op, int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
           float beta, float* c, int64_t ldc) {
  if (m == 0 || n == 0) return;
  const dnnl_status_t status =
      dnnl_sgemm(static_cast<char>(a_op), static_cast<char>(b_op), m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
  PENSTOCK_CHECK(status == dnnl_success, "oneDNN sgemm {}x{}x{} failed with status {}", m, n, k, static_cast<int>(status));
}

}  // namespace penstock::kernels
