#pragma once
// Updates of one array of weights, and the norms that layer-wise rules need. Each works in place on float32 arrays of `count` elements.
#include <cstdint>

namespace penstock::kernels {

// AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) and, in two passes, LAMB (You et al. 2020, arXiv 1904.00962).
struct AdamStep {
  float lr = 0;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0;    // decoupled: the weight shrinks by lr · weight_decay
  float gradient_scale = 1;  // the clip factor
  int64_t step = 1;          // 1 for the first update (bias correction)
};

void adamw(float* weights, const float* gradients, float* m, float* v, int64_t count, const AdamStep& step);

struct SquareSums {
  double weights = 0;
  double update = 0;
};

// Updates the moments; returns Σ w² and Σ u² of the direction u = m̂ / (√v̂ + eps) + weight_decay · w ...
SquareSums lamb_moments(const float* weights, const float* gradients, float* m, float* v, int64_t count, const AdamStep& step);
// ... and w −= lr · trust · u, the same direction computed again.
void lamb_update(float* weights, const float* m, const float* v, int64_t count, const AdamStep& step, float trust);

// m ← momentum · m + lr_scale · (g + weight_decay · w);  w −= lr · m. With lr_scale 1 SGD with momentum (weight decay as in PyTorch's),
// else LARS (You et al. 2017, arXiv 1708.03888), whose local rate lr_scale is.
struct MomentumStep {
  float lr = 0;
  float momentum = 0.9f;
  float weight_decay = 0;
  float gradient_scale = 1;
  float lr_scale = 1;
};
void momentum_sgd(float* weights, const float* gradients, float* m, int64_t count, const MomentumStep& step);

// Σ x², summed in float64 in an order that depends on `count` alone.
double sum_of_squares(const float* x, int64_t count);

}  // namespace penstock::kernels
