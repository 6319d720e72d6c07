#include "kernels/optimizers.h"

#include <cmath>
#include <vector>

#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

constexpr int64_t kBlock = 4096;

// Of bias in moments that began at zero.
struct Corrections {
  float first, second;
};

Corrections corrections(const AdamStep& s) {
  const auto one = [&](float beta) { return static_cast<float>(1.0 / (1.0 - std::pow(static_cast<double>(beta), static_cast<double>(s.step)))); };
  return {one(s.beta1), one(s.beta2)};
}

PENSTOCK_CLONES void adamw_block(float* w, const float* g, float* m, float* v, int64_t count, const AdamStep& s, Corrections c) {
  const float keep = 1.0f - s.lr * s.weight_decay;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = g[i] * s.gradient_scale;
    m[i] = s.beta1 * m[i] + (1.0f - s.beta1) * gradient;
    v[i] = s.beta2 * v[i] + (1.0f - s.beta2) * gradient * gradient;
    w[i] = w[i] * keep - s.lr * (m[i] * c.first) / (std::sqrt(v[i] * c.second) + s.eps);
  }
}

PENSTOCK_CLONES SquareSums lamb_moments_block(const float* w, const float* g, float* m, float* v, int64_t count, const AdamStep& s, Corrections c) {
  double weights = 0, update = 0;
#pragma omp simd reduction(+ : weights, update)
  for (int64_t i = 0; i < count; ++i) {
    const float gradient = g[i] * s.gradient_scale;
    m[i] = s.beta1 * m[i] + (1.0f - s.beta1) * gradient;
    v[i] = s.beta2 * v[i] + (1.0f - s.beta2) * gradient * gradient;
    const float u = (m[i] * c.first) / (std::sqrt(v[i] * c.second) + s.eps) + s.weight_decay * w[i];
    weights += static_cast<double>(w[i]) * static_cast<double>(w[i]);
    update += static_cast<double>(u) * static_cast<double>(u);
  }
  return {weights, update};
}

PENSTOCK_CLONES void lamb_update_block(float* w, const float* m, const float* v, int64_t count, const AdamStep& s, Corrections c, float rate) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) w[i] -= rate * ((m[i] * c.first) / (std::sqrt(v[i] * c.second) + s.eps) + s.weight_decay * w[i]);
}

PENSTOCK_CLONES void momentum_block(float* w, const float* g, float* m, int64_t count, const MomentumStep& s) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    m[i] = s.momentum * m[i] + s.lr_scale * (g[i] * s.gradient_scale + s.weight_decay * w[i]);
    w[i] -= s.lr * m[i];
  }
}

PENSTOCK_CLONES double square_block(const float* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace

void adamw(float* weights, const float* gradients, float* m, float* v, int64_t count, const AdamStep& step) {
  const Corrections c = corrections(step);
  at::parallel_for(0, count, kBlock, [&](int64_t begin, int64_t end) {
    adamw_block(weights + begin, gradients + begin, m + begin, v + begin, end - begin, step, c);
  });
}

// Block by block and in order, so that the sums do not depend on the number of threads.
SquareSums lamb_moments(const float* weights, const float* gradients, float* m, float* v, int64_t count, const AdamStep& step) {
  const Corrections c = corrections(step);
  SquareSums sums;
  for (int64_t i = 0; i < count; i += kBlock) {
    const SquareSums block = lamb_moments_block(weights + i, gradients + i, m + i, v + i, std::min(kBlock, count - i), step, c);
    sums.weights += block.weights;
    sums.update += block.update;
  }
  return sums;
}

void lamb_update(float* weights, const float* m, const float* v, int64_t count, const AdamStep& step, float trust) {
  const Corrections c = corrections(step);
  at::parallel_for(0, count, kBlock, [&](int64_t begin, int64_t end) {
    lamb_update_block(weights + begin, m + begin, v + begin, end - begin, step, c, step.lr * trust);
  });
}

void momentum_sgd(float* weights, const float* gradients, float* m, int64_t count, const MomentumStep& step) {
  at::parallel_for(0, count, kBlock, [&](int64_t begin, int64_t end) {
    momentum_block(weights + begin, gradients + begin, m + begin, end - begin, step);
  });
}

double sum_of_squares(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i += kBlock) sum += square_block(x + i, std::min(kBlock, count - i));
  return sum;
}

}  // namespace penstock::kernels
