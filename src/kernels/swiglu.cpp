#include "kernels/swiglu.h"

#include "base/error.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"
#include "kernels/training_on_device.h"

namespace penstock::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowsPerTask = 16;

PENSTOCK_CLONES void gate_rows(const float* gate_up, float* y, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = gate_up + r * 2 * width, *up = gate + width;
    float* out = y + r * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) out[i] = gate[i] * sigmoid_fast(gate[i]) * up[i];
  }
}

PENSTOCK_CLONES void backward_rows(const float* gate_up, const float* dy, float* dgate_up, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *gate = gate_up + r * 2 * width, *up = gate + width, *g = dy + r * width;
    float *dgate = dgate_up + r * 2 * width, *dup = dgate + width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      const float sigmoid = sigmoid_fast(gate[i]);
      const float silu = gate[i] * sigmoid;
      dup[i] = g[i] * silu;
      dgate[i] = g[i] * up[i] * (sigmoid + silu * (1.0f - sigmoid));
    }
  }
}

Tensor forward_rows(const Tensor& gate_up) {
  const int64_t width = gate_up.size(-1) / 2, rows = gate_up.numel() / (2 * width);
  auto shape = gate_up.sizes().vec();
  shape.back() = width;
  Tensor y = at::empty(shape, gate_up.options());
  const float* in = gate_up.data_ptr<float>();
  float* out = y.data_ptr<float>();
  parallel_for(0, rows, kRowsPerTask,
               [&](int64_t begin, int64_t end) { gate_rows(in + begin * 2 * width, out + begin * width, end - begin, width); });
  return y;
}

struct SwigluFunction : torch::autograd::Function<SwigluFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return forward_rows(gate_up);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor gate_up = ctx->get_saved_variables()[0];
    const Tensor dy = grads[0].contiguous();
    const int64_t width = gate_up.size(-1) / 2, rows = gate_up.numel() / (2 * width);
    Tensor dgate_up = at::empty_like(gate_up);
    const float *in = gate_up.data_ptr<float>(), *gp = dy.data_ptr<float>();
    float* out = dgate_up.data_ptr<float>();
    at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
      backward_rows(in + begin * 2 * width, gp + begin * width, out + begin * 2 * width, end - begin, width);
    });
    return {dgate_up};
  }
};

}  // namespace

Tensor swiglu(const Tensor& gate_up) {
  PENSTOCK_CHECK(gate_up.size(-1) % 2 == 0, "swiglu: the last dim is {}, expected an even number", gate_up.size(-1));
  if (!gate_up.is_cpu()) return cuda::takes(gate_up) ? cuda::swiglu(gate_up) : swiglu_on_device(gate_up);
  if (!at::GradMode::is_enabled()) return forward_rows(gate_up.contiguous());
  return SwigluFunction::apply(gate_up.contiguous());
}

Tensor swiglu_reference(const Tensor& gate_up) {
  const auto halves = gate_up.chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
}

}  // namespace penstock::kernels
