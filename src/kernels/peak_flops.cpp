#include "kernels/peak_flops.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "kernels/matmul.h"

namespace penstock::kernels {

double measure_peak_flops(Compute compute, double seconds) {
  constexpr int64_t n = 1024;
  const std::vector<float> a(n * n, 0.5f), b(n * n, 0.25f);
  std::vector<float> c(n * n);
  const at::Tensor half_a = at::full({n, n}, 0.5, at::kBFloat16), half_b = at::full({n, n}, 0.25, at::kBFloat16);
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto before = Clock::now();
    if (compute == Compute::kBf16) {
      const at::Tensor product = at::mm(half_a, half_b);
    } else {
      sgemm(Transpose::kNo, Transpose::kYes, n, n, n, a.data(), n, b.data(), n, 0.0f, c.data(), n);
    }
    best = std::max(best, 2.0 * n * n * n / to_seconds(Clock::now() - before));
  } while (to_seconds(Clock::now() - start) < seconds);
  return best;
}

}  // namespace penstock::kernels
