#include "kernels/head_norm.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/rms_norm.h"
#include "kernels/parallel.h"
#include "kernels/rms_norm_rows.h"

namespace penstock::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kRowsPerTask = 16;

struct Sizes {
  const AttentionShape& shape;
  int64_t rows;
  [[nodiscard]] int64_t row() const { return shape.row(); }
  [[nodiscard]] int64_t keys_at() const { return shape.heads * shape.head_size; }
  [[nodiscard]] int64_t values_at() const { return (shape.heads + shape.kv_heads) * shape.head_size; }
  [[nodiscard]] int64_t norms() const { return shape.heads + shape.kv_heads; }  // of a row
};

Tensor forward_heads(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight, const Tensor& k_weight, double eps, Tensor& inverse) {
  const Sizes s{shape, qkv.numel() / shape.row()};
  Tensor out = at::empty_like(qkv);
  inverse = at::empty({s.rows, s.norms()}, qkv.options());
  const float *x = qkv.data_ptr<float>(), *qw = q_weight.data_ptr<float>(), *kw = k_weight.data_ptr<float>();
  float *y = out.data_ptr<float>(), *inv = inverse.data_ptr<float>();
  parallel_for(0, s.rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const float* in = x + r * s.row();
      float *to = y + r * s.row(), *one = inv + r * s.norms();
      normalise_rows(in, qw, to, one, shape.heads, shape.head_size, static_cast<float>(eps));
      normalise_rows(in + s.keys_at(), kw, to + s.keys_at(), one + shape.heads, shape.kv_heads, shape.head_size, static_cast<float>(eps));
      std::copy(in + s.values_at(), in + s.row(), to + s.values_at());
    }
  });
  return out;
}

struct HeadNormFunction : torch::autograd::Function<HeadNormFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& qkv, const Tensor& q_weight, const Tensor& k_weight, const AttentionShape* shape, double eps) {
    Tensor inverse;
    Tensor out = forward_heads(qkv, *shape, q_weight, k_weight, eps, inverse);
    ctx->save_for_backward({qkv, q_weight, k_weight, inverse});
    ctx->saved_data["heads"] = shape->heads;
    ctx->saved_data["kv_heads"] = shape->kv_heads;
    ctx->saved_data["head_size"] = shape->head_size;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const AttentionShape shape{ctx->saved_data["heads"].toInt(), ctx->saved_data["kv_heads"].toInt(), ctx->saved_data["head_size"].toInt()};
    const Tensor dy = grads[0].contiguous();
    const Sizes s{shape, dy.numel() / shape.row()};
    // Each task sums weight gradients of its own; tasks are cut by row count alone, so the sum's order does not depend on the thread count.
    const int64_t rows_per_part = std::max<int64_t>(kRowsPerTask, (s.rows + 15) / 16), parts = (s.rows + rows_per_part - 1) / rows_per_part;
    Tensor dx = at::empty_like(dy), partial = at::zeros({parts, 2, shape.head_size}, dy.options());
    const float *x = saved[0].data_ptr<float>(), *qw = saved[1].data_ptr<float>(), *kw = saved[2].data_ptr<float>(), *inv = saved[3].data_ptr<float>();
    const float* g = dy.data_ptr<float>();
    float *d = dx.data_ptr<float>(), *sums = partial.data_ptr<float>();
    at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t part = begin; part < end; ++part) {
        float *dq = sums + part * 2 * shape.head_size, *dk = dq + shape.head_size;
        for (int64_t r = part * rows_per_part; r < std::min(s.rows, (part + 1) * rows_per_part); ++r) {
          const int64_t at = r * s.row(), keys = at + s.keys_at();
          const float* one = inv + r * s.norms();
          normalise_rows_backward(x + at, qw, g + at, one, d + at, dq, shape.heads, shape.head_size);
          normalise_rows_backward(x + keys, kw, g + keys, one + shape.heads, d + keys, dk, shape.kv_heads, shape.head_size);
          std::copy(g + at + s.values_at(), g + at + s.row(), d + at + s.values_at());
        }
      }
    });
    const Tensor weights = partial.sum(0);
    return {dx, weights[0], weights[1], Tensor(), Tensor()};
  }
};

}  // namespace

Tensor head_norm(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight, const Tensor& k_weight, double eps) {
  PENSTOCK_CHECK(qkv.size(-1) == shape.row() && q_weight.numel() == shape.head_size && k_weight.numel() == shape.head_size,
                 "head_norm: rows of {}, weights of {} and {}; expected {} and {}", qkv.size(-1), q_weight.numel(), k_weight.numel(), shape.row(), shape.head_size);
  if (!qkv.is_cpu()) return cuda::takes(qkv) ? cuda::head_norm(qkv, shape, q_weight, k_weight, eps) : head_norm_reference(qkv, shape, q_weight, k_weight, eps);
  if (!at::GradMode::is_enabled()) {
    Tensor inverse;
    return forward_heads(qkv.contiguous(), shape, q_weight, k_weight, eps, inverse);
  }
  return HeadNormFunction::apply(qkv.contiguous(), q_weight, k_weight, &shape, eps);
}

Tensor head_norm_reference(const Tensor& qkv, const AttentionShape& shape, const Tensor& q_weight, const Tensor& k_weight, double eps) {
  auto sizes = qkv.sizes().vec();
  sizes.back() = -1;
  sizes.push_back(shape.head_size);
  const auto parts = qkv.view(sizes).split_with_sizes({shape.heads, shape.kv_heads, shape.kv_heads}, -2);
  return at::cat({rms_norm_reference(parts[0], q_weight, eps), rms_norm_reference(parts[1], k_weight, eps), parts[2]}, -2).view(qkv.sizes());
}

}  // namespace penstock::kernels
