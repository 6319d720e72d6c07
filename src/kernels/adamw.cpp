#include "kernels/adamw.h"

#include <cmath>
#include <vector>

#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

constexpr int64_t kBlock = 4096;

PENSTOCK_CLONES void update(float* w, const float* g, float* m, float* v, int64_t count, const AdamwStep& s, float correct1, float correct2) {
  const float keep = 1.0f - s.lr * s.weight_decay;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = g[i] * s.gradient_scale;
    m[i] = s.beta1 * m[i] + (1.0f - s.beta1) * gradient;
    v[i] = s.beta2 * v[i] + (1.0f - s.beta2) * gradient * gradient;
    w[i] = w[i] * keep - s.lr * (m[i] * correct1) / (std::sqrt(v[i] * correct2) + s.eps);
  }
}

PENSTOCK_CLONES double square_block(const float* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace

void adamw(float* weights, const float* gradients, float* m, float* v, int64_t count, const AdamwStep& step) {
  const auto correct1 = static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(step.beta1), static_cast<double>(step.step))));
  const auto correct2 = static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(step.beta2), static_cast<double>(step.step))));
  at::parallel_for(0, count, kBlock, [&](int64_t begin, int64_t end) {
    update(weights + begin, gradients + begin, m + begin, v + begin, end - begin, step, correct1, correct2);
  });
}

double sum_of_squares(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i += kBlock) sum += square_block(x + i, std::min(kBlock, count - i));
  return sum;
}

}  // namespace penstock::kernels
