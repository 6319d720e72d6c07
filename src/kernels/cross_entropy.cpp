#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowsPerTask = 16;

// Writes softmax(logits) − onehot(target), the gradient for a unit loss gradient, and returns the loss of each row.
PENSTOCK_CLONES void loss_rows(const float* logits, const int64_t* targets, float* dlogits, double* losses, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r, logits += width, dlogits += width) {
    const int64_t target = targets[r];
    if (target < 0) {
      std::fill(dlogits, dlogits + width, 0.0f);
      losses[r] = 0;
      continue;
    }
    float top = logits[0];
#pragma omp simd reduction(max : top)
    for (int64_t i = 0; i < width; ++i) top = logits[i] > top ? logits[i] : top;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; ++i) {
      const float e = exp_fast(logits[i] - top);
      dlogits[i] = e;
      sum += e;
    }
    const float scale = 1.0f / sum;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) dlogits[i] *= scale;
    dlogits[target] -= 1.0f;
    losses[r] = static_cast<double>(top) + std::log(static_cast<double>(sum)) - static_cast<double>(logits[target]);
  }
}

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& logits, const Tensor& targets) {
    const int64_t width = logits.size(-1), rows = targets.numel();
    Tensor dlogits = at::empty_like(logits);
    Tensor losses = at::empty({rows}, logits.options().dtype(at::kDouble));
    const float* in = logits.data_ptr<float>();
    const int64_t* tp = targets.data_ptr<int64_t>();
    float* out = dlogits.data_ptr<float>();
    double* lp = losses.data_ptr<double>();
    at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      loss_rows(in + begin * width, tp + begin, out + begin * width, lp + begin, end - begin, width);
    });
    ctx->save_for_backward({dlogits});
    return losses.sum().to(at::kFloat);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return {ctx->get_saved_variables()[0] * grads[0], Tensor()};
  }
};

}  // namespace

Tensor cross_entropy_sum(const Tensor& logits, const Tensor& targets) {
  PENSTOCK_CHECK(logits.numel() == targets.numel() * logits.size(-1), "cross_entropy: {} logits for {} targets and {} classes",
                 logits.numel(), targets.numel(), logits.size(-1));
  if (!logits.is_cpu()) return cross_entropy_sum_reference(logits, targets);
  PENSTOCK_CHECK(targets.numel() == 0 || targets.max().item<int64_t>() < logits.size(-1), "cross_entropy: target {} with {} classes",
                 targets.max().item<int64_t>(), logits.size(-1));
  return CrossEntropyFunction::apply(logits.contiguous(), targets.contiguous());
}

Tensor cross_entropy_sum_reference(const Tensor& logits, const Tensor& targets) {
  const Tensor rows = at::log_softmax(logits.reshape({-1, logits.size(-1)}), -1);
  const Tensor flat = targets.reshape({-1});
  const Tensor picked = rows.gather(1, flat.clamp_min(0).unsqueeze(1)).squeeze(1);
  return -(picked * (flat >= 0)).sum();
}

}  // namespace penstock::kernels
