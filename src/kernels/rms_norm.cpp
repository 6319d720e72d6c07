#include "kernels/rms_norm.h"

#include <cmath>

#include "base/error.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/parallel.h"
#include "kernels/rms_norm_rows.h"
#include "kernels/simd.h"
#include "kernels/training_on_device.h"

namespace penstock::kernels {

PENSTOCK_CLONES void normalise_rows(const float* x, const float* weight, float* y, float* inverse, int64_t rows, int64_t width, float eps) {
  for (int64_t r = 0; r < rows; ++r, x += width, y += width) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float scale = 1.0f / std::sqrt(sum / static_cast<float>(width) + eps);
    inverse[r] = scale;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
  }
}

PENSTOCK_CLONES void normalise_rows_backward(const float* x, const float* weight, const float* dy, const float* inverse, float* dx, float* dw,
                                             int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r, x += width, dy += width, dx += width) {
    const float s = inverse[r];
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < width; ++i) dot += weight[i] * dy[i] * x[i];
    const float k = dot * s * s * s / static_cast<float>(width);
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      dx[i] = s * weight[i] * dy[i] - k * x[i];
      dw[i] += dy[i] * x[i] * s;
    }
  }
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowsPerTask = 16;

Tensor forward_rows(const Tensor& x, const Tensor& weight, double eps, Tensor& inverse) {
  const int64_t width = x.size(-1), rows = x.numel() / width;
  Tensor y = at::empty_like(x);
  inverse = at::empty({rows}, x.options());
  const float *xp = x.data_ptr<float>(), *wp = weight.data_ptr<float>();
  float *yp = y.data_ptr<float>(), *ip = inverse.data_ptr<float>();
  parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    normalise_rows(xp + begin * width, wp, yp + begin * width, ip + begin, end - begin, width, static_cast<float>(eps));
  });
  return y;
}

struct RmsNormFunction : torch::autograd::Function<RmsNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double eps) {
    Tensor inverse;
    Tensor y = forward_rows(x, weight, eps, inverse);
    ctx->save_for_backward({x, weight, inverse});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2];
    const Tensor dy = grads[0].contiguous();
    const int64_t width = x.size(-1), rows = x.numel() / width;
    // Each task sums its own dw; the tasks are cut by row count alone, so the sum's order does not depend on the thread count.
    const int64_t rows_per_part = std::max<int64_t>(kRowsPerTask, (rows + 15) / 16);
    const int64_t parts = (rows + rows_per_part - 1) / rows_per_part;
    Tensor dx = at::empty_like(x), partial = at::zeros({parts, width}, x.options());
    const float *xp = x.data_ptr<float>(), *wp = weight.data_ptr<float>(), *gp = dy.data_ptr<float>(), *ip = inverse.data_ptr<float>();
    float *dxp = dx.data_ptr<float>(), *pp = partial.data_ptr<float>();
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        const int64_t first = part * rows_per_part, count = std::min(rows_per_part, rows - first);
        normalise_rows_backward(xp + first * width, wp, gp + first * width, ip + first, dxp + first * width, pp + part * width, count, width);
      }
    });
    return {dx, partial.sum(0), Tensor()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  PENSTOCK_CHECK(x.size(-1) == weight.size(0), "rms_norm: x has width {}, weight {}", x.size(-1), weight.size(0));
  if (!x.is_cpu()) return cuda::takes(x) ? cuda::rms_norm(x, weight, eps) : rms_norm_on_device(x, weight, eps);
  if (!at::GradMode::is_enabled()) {
    Tensor inverse;
    return forward_rows(x.contiguous(), weight, eps, inverse);
  }
  return RmsNormFunction::apply(x.contiguous(), weight, eps);
}

Tensor rms_norm_reference(const Tensor& x, const Tensor& weight, double eps) {
  return x * at::rsqrt(x.square().mean(-1, true) + eps) * weight;
}

}  // namespace penstock::kernels
