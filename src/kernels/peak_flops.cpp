#include "kernels/peak_flops.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "kernels/matmul.h"
#include "kernels/operands.h"
#include "tensor/device.h"

namespace penstock::kernels {
namespace {

// The fastest of some products of two n x n matrices.
template <typename Product>
double fastest(int64_t n, double seconds, const Product& product) {
  double best = 0;
  const auto start = Clock::now();
  do {
    const auto before = Clock::now();
    product();
    const auto size = static_cast<double>(n);
    best = std::max(best, 2.0 * size * size * size / to_seconds(Clock::now() - before));
  } while (to_seconds(Clock::now() - start) < seconds);
  return best;
}

double on_gpu(Compute compute, double seconds, const at::Device& device) {
  constexpr int64_t n = 8192;
  const auto options = at::TensorOptions(operand_dtype(compute)).device(device);
  const at::Tensor a = at::full({n, n}, 0.5, options), b = at::full({n, n}, 0.25, options);
  at::Tensor c = at::empty({n, n}, options);
  const auto product = [&] {
    at::mm_out(c, a, b);
    tensor::synchronize(device);
  };
  product();  // prepares the library
  // The mean: processes that share the GPU share its peak, where the fastest product of each may have had it alone.
  int products = 0;
  const auto start = Clock::now();
  do {
    product();
    ++products;
  } while (to_seconds(Clock::now() - start) < seconds);
  return products * 2.0 * n * n * n / to_seconds(Clock::now() - start);
}

}  // namespace

double measure_peak_flops(Compute compute, double seconds, at::Device device) {
  if (!device.is_cpu()) return on_gpu(compute, seconds, device);
  constexpr int64_t n = 1024;
  if (compute == Compute::kBf16) {
    const at::Tensor half_a = at::full({n, n}, 0.5, at::kBFloat16), half_b = at::full({n, n}, 0.25, at::kBFloat16);
    return fastest(n, seconds, [&] { const at::Tensor product = at::mm(half_a, half_b); });
  }
  const std::vector<float> a(n * n, 0.5f), b(n * n, 0.25f);
  std::vector<float> c(n * n);
  return fastest(n, seconds, [&] { sgemm(Transpose::kNo, Transpose::kYes, n, n, n, a.data(), n, b.data(), n, 0.0f, c.data(), n); });
}

}  // namespace penstock::kernels
