#pragma once
// One AdamW update (Loshchilov and Hutter 2019, arXiv 1711.05101).
#include <cstdint>

namespace penstock::kernels {

struct AdamwStep {
  float lr = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0;   // decoupled: the weight shrinks by lr · weight_decay
  float gradient_scale = 1; // the clip factor
  int64_t step = 1;         // 1 for the first update (bias correction)
};

// Updates weights, m and v in place; arrays of `count` float32.
void adamw(float* weights, const float* gradients, float* m, float* v, int64_t count, const AdamwStep& step);

// Σ x², summed in float64 in an order that depends on `count` alone.
double sum_of_squares(const float* x, int64_t count);

}  // namespace penstock::kernels
