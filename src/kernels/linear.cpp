#include "kernels/linear.h"

#include "base/error.h"
#include "kernels/matmul.h"

namespace penstock::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor as_rows(const Tensor& x) { return x.contiguous().view({-1, x.size(-1)}); }

// a [M, K] or [K, M]ᵀ times b [K, N] or [N, K]ᵀ.
Tensor product(const Tensor& a, Transpose a_op, const Tensor& b, Transpose b_op, Compute compute) {
  const bool at = a_op == Transpose::kYes, bt = b_op == Transpose::kYes;
  if (compute == Compute::kBf16 || !a.is_cpu()) {
    const auto type = compute == Compute::kBf16 ? at::kBFloat16 : at::kFloat;
    const Tensor left = a.to(type), right = b.to(type);
    return at::mm(at ? left.t() : left, bt ? right.t() : right).to(at::kFloat);
  }
  const int64_t m = a.size(at ? 1 : 0), k = a.size(at ? 0 : 1), n = b.size(bt ? 0 : 1);
  Tensor c = at::empty({m, n}, a.options());
  sgemm(a_op, b_op, m, n, k, a.data_ptr<float>(), a.size(1), b.data_ptr<float>(), b.size(1), 0.0f, c.data_ptr<float>(), n);
  return c;
}

Tensor forward_product(const Tensor& x, const Tensor& weight, Compute compute) {
  Tensor y = product(as_rows(x), Transpose::kNo, weight, Transpose::kYes, compute);
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return y.view(shape);
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, int64_t compute) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["compute"] = compute;
    return forward_product(x, weight, static_cast<Compute>(compute));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto compute = static_cast<Compute>(ctx->saved_data["compute"].toInt());
    const Tensor &x = saved[0], &weight = saved[1];
    const Tensor gy = as_rows(grads[0]);
    Tensor gx, gw;
    if (ctx->needs_input_grad(0)) gx = product(gy, Transpose::kNo, weight, Transpose::kNo, compute).view(x.sizes());
    if (ctx->needs_input_grad(1)) gw = product(gy, Transpose::kYes, as_rows(x), Transpose::kNo, compute);
    return {gx, gw, Tensor()};
  }
};

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, Compute compute) {
  PENSTOCK_CHECK(x.size(-1) == weight.size(1), "linear: x has {} columns, weight expects {}", x.size(-1), weight.size(1));
  if (!at::GradMode::is_enabled() || !(x.requires_grad() || weight.requires_grad())) return forward_product(x, weight, compute);
  return LinearFunction::apply(x, weight, static_cast<int64_t>(compute));
}

}  // namespace penstock::kernels
