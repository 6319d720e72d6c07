#include "kernels/linear.h"

#include "base/error.h"
#include "kernels/amx.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/float_product.h"
#include "kernels/matmul.h"
#include "kernels/operands.h"
#include "kernels/parallel.h"
#include "kernels/quantized_linear.h"
#include "kernels/swiglu.h"
#include "kernels/weight_grad_queue.h"
#include "tensor/cpu_features.h"

namespace penstock::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor as_rows(const Tensor& x) { return x.contiguous().view({-1, x.size(-1)}); }

// As products take it: rounded already, where they round.
Tensor as_operand(const Tensor& x, Compute compute) { return x.to(operand_dtype(compute)); }

Tensor product(const Tensor& a, Transpose a_op, const Tensor& b, Transpose b_op, Compute compute);

Tensor rounded_to_half(const Tensor& x) { return x.to(at::kHalf).to(at::kFloat); }

// LibTorch 1.13 has no such product on a CPU, and processors gain nothing by it: float32 arithmetic on rounded numbers.
Tensor half_product_on_cpu(const Tensor& a, Transpose a_op, const Tensor& b, Transpose b_op) {
  return rounded_to_half(product(rounded_to_half(a), a_op, rounded_to_half(b), b_op, Compute::kFp32));
}

// a [M, K] or [K, M]ᵀ times b [K, N] or [N, K]ᵀ, float32 or operands -> float32.
Tensor product(const Tensor& a, Transpose a_op, const Tensor& b, Transpose b_op, Compute compute) {
  const bool at = a_op == Transpose::kYes, bt = b_op == Transpose::kYes;
  if (compute == Compute::kFp16 && a.is_cpu()) return half_product_on_cpu(a, a_op, b, b_op);
  if (compute == Compute::kBf16 || !a.is_cpu()) {
    const Tensor left = as_operand(a, compute), right = as_operand(b, compute);
    return at::mm(at ? left.t() : left, bt ? right.t() : right).to(at::kFloat);
  }
  const int64_t m = a.size(at ? 1 : 0), k = a.size(at ? 0 : 1), n = b.size(bt ? 0 : 1);
  Tensor c = at::empty({m, n}, a.options());
  sgemm(a_op, b_op, m, n, k, a.data_ptr<float>(), a.size(1), b.data_ptr<float>(), b.size(1), 0.0f, c.data_ptr<float>(), n);
  return c;
}

// y [N, ...] as x is shaped, but for its width.
Tensor shaped_as(const Tensor& x, const Tensor& y) {
  auto shape = x.sizes().vec();
  shape.back() = y.size(-1);
  return y.view(shape);
}

Tensor forward_product(const Tensor& x, const Tensor& weight, Compute compute) {
  return shaped_as(x, product(as_rows(x), Transpose::kNo, weight, Transpose::kYes, compute));
}

// So many rows are rounded to bfloat16 where the processor computes in it but for AMX: their products take longer than reading the weights.
constexpr int64_t kManyRows = 64;

// Products of kernels/float_product.h, in which a row depends on itself alone; a weight of bfloat16 is multiplied with float32 activations. But many rows are
// left to LibTorch where only it multiplies rounded ones several times as fast.
Tensor serving_product(const Tensor& x, const Tensor& weight) {
  const bool is_bf16 = weight.scalar_type() == at::kBFloat16;
  const Tensor rows = as_rows(x);
  if (is_bf16 && rows.size(0) >= kManyRows && !has_amx() && tensor::has_bf16()) {
    const OpenMpScope openmp;
    return forward_product(x, weight, Compute::kBf16);
  }
  PENSTOCK_CHECK(weight.is_contiguous(), "linear: a weight of {} x {} with gaps between its rows", weight.size(0), weight.size(1));
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  Tensor y = at::empty(shape, x.options());
  const ProductSizes sizes{rows.size(0), weight.size(0), weight.size(1)};
  if (is_bf16) multiply(static_cast<const Bfloat16*>(weight.data_ptr()), rows.data_ptr<float>(), y.data_ptr<float>(), sizes);
  else multiply(weight.data_ptr<float>(), rows.data_ptr<float>(), y.data_ptr<float>(), sizes);
  return y;
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, int64_t compute) {
    const auto how = static_cast<Compute>(compute);
    const Tensor rows = as_operand(as_rows(x), how);
    ctx->save_for_backward({rows, weight});
    ctx->saved_data["compute"] = compute;
    return shaped_as(x, product(rows, Transpose::kNo, weight, Transpose::kYes, how));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto compute = static_cast<Compute>(ctx->saved_data["compute"].toInt());
    const Tensor &rows = saved[0], &weight = saved[1];
    const Tensor gy = as_operand(as_rows(grads[0]), compute);
    Tensor gx, gw;
    if (ctx->needs_input_grad(0)) gx = shaped_as(grads[0], product(gy, Transpose::kNo, weight, Transpose::kNo, compute));
    if (ctx->needs_input_grad(1)) gw = product(gy, Transpose::kYes, rows, Transpose::kNo, compute);
    return {gx, gw, Tensor()};
  }
};

// The weight is no input of this node's graph: its gradient is left to the queue.
struct Deferred {
  Tensor weight;  // the leaf
  WeightGradQueue* queue = nullptr;
};

// grad [O, D] += grad_output [N, O]ᵀ · x [N, D].
void add_weight_gradient(Tensor& grad, const Tensor& grad_output, const Tensor& x, Compute compute) {
  if (compute != Compute::kFp32 || !grad.is_cpu() || !grad.is_contiguous()) {
    grad.add_(product(grad_output, Transpose::kYes, x, Transpose::kNo, compute));
    return;
  }
  const int64_t n = grad_output.size(0), o = grad_output.size(1), d = x.size(1);
  sgemm(Transpose::kYes, Transpose::kNo, o, d, n, grad_output.data_ptr<float>(), o, x.data_ptr<float>(), d, 1.0f, grad.data_ptr<float>(), d);
}

struct DeferringLinear : torch::autograd::Function<DeferringLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Deferred& deferred, int64_t compute) {
    const auto how = static_cast<Compute>(compute);
    const Tensor rows = as_operand(as_rows(x), how);
    ctx->save_for_backward({rows});
    ctx->saved_data["weight"] = deferred.weight;
    ctx->saved_data["queue"] = reinterpret_cast<int64_t>(deferred.queue);
    ctx->saved_data["compute"] = compute;
    return shaped_as(x, product(rows, Transpose::kNo, deferred.weight, Transpose::kYes, how));
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor rows = ctx->get_saved_variables()[0];
    const Tensor weight = ctx->saved_data["weight"].toTensor();
    auto* queue = reinterpret_cast<WeightGradQueue*>(ctx->saved_data["queue"].toInt());
    const auto compute = static_cast<Compute>(ctx->saved_data["compute"].toInt());
    const Tensor gy = as_operand(as_rows(grads[0]).detach(), compute);
    queue->push(weight, [rows = rows.detach(), gy, compute](Tensor& grad) { add_weight_gradient(grad, gy, rows, compute); });
    return {shaped_as(grads[0], product(gy, Transpose::kNo, weight, Transpose::kNo, compute)), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const LinearOptions& options) {
  PENSTOCK_CHECK(x.size(-1) == weight.size(1), "linear: x has {} columns, weight expects {}", x.size(-1), weight.size(1));
  if (options.quantized != nullptr) {
    if (const QuantizedWeight* quantized = options.quantized->find(weight)) return quantized_linear(x, *quantized);
  }
  const auto compute = static_cast<int64_t>(options.compute);
  if (!at::GradMode::is_enabled() || !(x.requires_grad() || weight.requires_grad())) {
    if (cuda::takes_product(x, weight)) return cuda::product({}, x, weight, {});
    const bool serves = current_team() != nullptr;  // training computes on OpenMP's threads
    return serves && x.is_cpu() ? serving_product(x, weight) : forward_product(x, weight, options.compute);
  }
  if (options.weight_grads != nullptr && x.requires_grad() && weight.requires_grad()) {
    return DeferringLinear::apply(x, Deferred{weight, options.weight_grads}, compute);
  }
  return LinearFunction::apply(x, weight, compute);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const LinearOptions& options) {
  if (!bias.defined()) return linear(x, weight, options);
  PENSTOCK_CHECK(bias.dim() == 1 && bias.size(0) == weight.size(0), "linear: bias of {}, weight has {} rows", bias.numel(), weight.size(0));
  if (cuda::takes_product(x, weight)) return cuda::product({}, x, weight, bias);
  const Tensor y = linear(x, weight, options);
  return y.requires_grad() || bias.requires_grad() ? y + bias : y.add_(bias);
}

Tensor add_linear(const Tensor& base, const Tensor& x, const Tensor& weight, const Tensor& bias, const LinearOptions& options) {
  return cuda::takes_product(x, weight) ? cuda::product(base, x, weight, bias) : base + linear(x, weight, bias, options);
}

Tensor gated_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const LinearOptions& options) {
  return cuda::takes_product(x, weight) ? cuda::gated_product(x, weight, bias) : swiglu(linear(x, weight, bias, options));
}

}  // namespace penstock::kernels
