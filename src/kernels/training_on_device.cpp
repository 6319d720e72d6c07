#include "kernels/training_on_device.h"

namespace penstock::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct RmsNormOnDevice : torch::autograd::Function<RmsNormOnDevice> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double eps) {
    const Tensor inverse = x.square().mean(-1, true).add_(eps).rsqrt_();  // [..., 1]
    ctx->save_for_backward({x, weight, inverse});
    return (x * inverse).mul_(weight);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2], &dy = grads[0];
    const Tensor normal = x * inverse, dnormal = dy * weight;
    const Tensor dweight = (dy * normal).reshape({-1, x.size(-1)}).sum(0);
    const Tensor mean = (dnormal * normal).mean(-1, true);
    return {at::addcmul(dnormal, normal, mean, -1).mul_(inverse), dweight, Tensor()};
  }
};

struct SwigluOnDevice : torch::autograd::Function<SwigluOnDevice> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    const auto halves = gate_up.chunk(2, -1);
    return at::silu(halves[0]).mul_(halves[1]);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor gate_up = ctx->get_saved_variables()[0];
    const auto halves = gate_up.chunk(2, -1);
    return {at::cat({at::silu_backward(grads[0] * halves[1], halves[0]), at::silu(halves[0]).mul_(grads[0])}, -1)};
  }
};

Tensor turned(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return at::cat({at::addcmul(halves[0] * cos, halves[1], sin, -1), at::addcmul(halves[1] * cos, halves[0], sin)}, -1);
}

struct RotationOnDevice : torch::autograd::Function<RotationOnDevice> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin) {
    ctx->save_for_backward({cos, sin});
    return turned(x, cos, sin);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    return {turned(grads[0], saved[0], -saved[1]), Tensor(), Tensor()};  // the transpose turns back
  }
};

}  // namespace

Tensor rms_norm_on_device(const Tensor& x, const Tensor& weight, double eps) { return RmsNormOnDevice::apply(x, weight, eps); }
Tensor swiglu_on_device(const Tensor& gate_up) { return SwigluOnDevice::apply(gate_up); }
Tensor rotated_on_device(const Tensor& x, const Tensor& cos, const Tensor& sin) { return RotationOnDevice::apply(x, cos, sin); }

}  // namespace penstock::kernels
