#include "kernels/cuda/cuda_kernels.h"

#include "base/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/place.h"

namespace penstock::kernels::cuda {
namespace {

void require_near(const Tensor& a, const Tensor& x, const char* what) {
  PENSTOCK_CHECK(a.device() == x.device() && a.scalar_type() == at::kFloat && a.is_contiguous(), "{}: {} on {}, expected float32 without gaps on {}", what,
                 c10::toString(a.scalar_type()), a.device().str(), x.device().str());
}

Tensor empty_with_width(const Tensor& x, int64_t width) {
  auto shape = x.sizes().vec();
  shape.back() = width;
  return at::empty(shape, x.options());
}

// Elements of a bfloat16 weight from which on LibTorch's product of more than kFewRowsOfLarge rounded rows is the faster one (docs/benchmarks.md).
constexpr int64_t kLargeWeight = 24'000'000, kFewRowsOfLarge = 4;

int64_t num_rows(const Tensor& x) { return x.numel() / x.size(-1); }

Tensor multiply(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& base, bool is_gated) {
  PENSTOCK_CHECK(weight.device() == x.device() && x.size(-1) == weight.size(1), "product: a weight of {} columns on {} for activations of {} on {}", weight.size(1),
                 weight.device().str(), x.size(-1), x.device().str());
  if (bias.defined()) require_near(bias, x, "product");
  const Place place(x);
  const Tensor in = x.contiguous(), added = base.defined() ? base.contiguous() : base;
  if (added.defined()) require_near(added, x, "product");
  Tensor y = empty_with_width(in, is_gated ? weight.size(0) / 2 : weight.size(0));
  const Product job{.weight = weight.data_ptr(),
                    .is_bf16 = weight.scalar_type() == at::kBFloat16,
                    .is_gated = is_gated,
                    .x = in.data_ptr<float>(),
                    .bias = bias.defined() ? bias.data_ptr<float>() : nullptr,
                    .base = added.defined() ? added.data_ptr<float>() : nullptr,
                    .y = y.data_ptr<float>(),
                    .rows = static_cast<int>(num_rows(in)),
                    .weight_rows = weight.size(0),
                    .width = weight.size(1)};
  check(launch_product(job, place.stream), "product", x);
  return y;
}

}  // namespace

bool built() { return true; }

bool takes(const Tensor& x) { return x.is_cuda() && x.scalar_type() == at::kFloat && !at::GradMode::is_enabled(); }

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  require_near(weight, x, "rms_norm");
  const Place place(x);
  const Tensor in = x.contiguous();
  Tensor y = at::empty(in.sizes(), in.options());
  if (in.numel() == 0) return y;
  check(launch_rms_norm(in.data_ptr<float>(), weight.data_ptr<float>(), y.data_ptr<float>(), num_rows(in), in.size(-1), static_cast<float>(eps), place.stream), "rms_norm", x);
  return y;
}

Tensor head_norm(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight, const Tensor& k_weight, double eps) {
  require_near(q_weight, qkv, "head_norm");
  require_near(k_weight, qkv, "head_norm");
  const Place place(qkv);
  const Tensor in = qkv.contiguous();
  Tensor out = at::empty(in.sizes(), in.options());
  if (in.numel() == 0) return out;
  const HeadNorm job{.qkv = in.data_ptr<float>(),
                     .q_weight = q_weight.data_ptr<float>(),
                     .k_weight = k_weight.data_ptr<float>(),
                     .out = out.data_ptr<float>(),
                     .rows = num_rows(in),
                     .heads = static_cast<int>(shape.heads),
                     .kv_heads = static_cast<int>(shape.kv_heads),
                     .head_size = static_cast<int>(shape.head_size),
                     .eps = static_cast<float>(eps)};
  check(launch_head_norm(job, place.stream), "head_norm", qkv);
  return out;
}

Tensor swiglu(const Tensor& gate_up) {
  const Place place(gate_up);
  const Tensor in = gate_up.contiguous();
  Tensor y = empty_with_width(in, in.size(-1) / 2);
  if (in.numel() == 0) return y;
  check(launch_swiglu(in.data_ptr<float>(), y.data_ptr<float>(), num_rows(in), in.size(-1) / 2, place.stream), "swiglu", gate_up);
  return y;
}

bool takes_product(const Tensor& x, const Tensor& weight) {
  if (!takes(x) || x.numel() == 0 || weight.dim() != 2 || !weight.is_contiguous() || weight.numel() == 0) return false;
  const bool is_bf16 = weight.scalar_type() == at::kBFloat16, is_large = weight.numel() > kLargeWeight;
  return (is_bf16 || weight.scalar_type() == at::kFloat) && num_rows(x) <= (is_bf16 && is_large ? kFewRowsOfLarge : kFewRows);
}

Tensor product(const Tensor& base, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (base.defined()) PENSTOCK_CHECK(base.numel() == num_rows(x) * weight.size(0), "product: {} elements to add to {} rows of {}", base.numel(), num_rows(x), weight.size(0));
  return multiply(x, weight, bias, base, false);
}

Tensor gated_product(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  PENSTOCK_CHECK(weight.size(0) % 2 == 0, "gated product: a weight of {} rows, expected an even number", weight.size(0));
  return multiply(x, weight, bias, {}, true);
}

}  // namespace penstock::kernels::cuda
