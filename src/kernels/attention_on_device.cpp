#include "kernels/attention_on_device.h"

#include <torch/version.h>

#include <cmath>

#include "kernels/operands.h"
#include "kernels/rotary_tensors.h"
#include "kernels/training_on_device.h"

namespace penstock::kernels {
namespace {

// [B, G, T, K] -> [B, H, T, K].
Tensor for_each_query_head(const Tensor& x, int64_t per_group) { return per_group == 1 ? x : x.repeat_interleave(per_group, 1); }

// q, k, v [B, H, T, K]; `visible` [B, 1, T, T], or undefined: every position sees those before it.
Tensor attended(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& visible) {
#if TORCH_VERSION_MAJOR >= 2
  if (!visible.defined()) return at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true);
  return at::scaled_dot_product_attention(q, k, v, visible, 0.0, false);
#else
  const int64_t length = q.size(2);
  const Tensor seen = visible.defined() ? visible : at::ones({length, length}, q.options().dtype(at::kBool)).tril();
  const Tensor scores = at::matmul(q, k.transpose(-1, -2)) * (1.0 / std::sqrt(static_cast<double>(q.size(3))));
  return at::matmul(at::softmax(scores.masked_fill(seen.logical_not(), -INFINITY), -1), v);
#endif
}

}  // namespace

Tensor attention_on_device(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const Tensor& starts, Compute compute) {
  const int64_t batch = qkv.size(0), length = qkv.size(1), turned = shape.heads + shape.kv_heads;
  const Tensor rows = at::arange(length, qkv.options().dtype(at::kLong).requires_grad(false));  // [T]
  const RotaryTensors tables = rotary_tensors(rotary, qkv.device());
  Tensor cos = tables.cos.narrow(0, 0, length), sin = tables.sin.narrow(0, 0, length), visible;  // [T, K/2]
  if (starts.defined()) {
    const Tensor first = starts.to(qkv.device(), at::kLong), positions = rows - first;  // [B, T]
    cos = tables.cos.index({positions});
    sin = tables.sin.index({positions});
    visible = rows.unsqueeze(0).le(rows.unsqueeze(1)).logical_and(rows.view({1, 1, length}).ge(first.unsqueeze(2))).unsqueeze(1);
  }
  // Cut by split, whose gradient is one cat.
  const auto heads = qkv.view({batch, length, turned + shape.kv_heads, shape.head_size}).split_with_sizes({turned, shape.kv_heads}, 2);
  const auto qk = rotated_on_device(heads[0], cos.unsqueeze(-2), sin.unsqueeze(-2)).split_with_sizes({shape.heads, shape.kv_heads}, 2);
  const auto operand = [&](const Tensor& x) { return x.to(operand_dtype(compute)).transpose(1, 2); };
  const int64_t per_group = shape.heads / shape.kv_heads;
  const Tensor q = operand(qk[0]), k = for_each_query_head(operand(qk[1]), per_group), v = for_each_query_head(operand(heads[1]), per_group);
  return attended(q, k, v, visible).transpose(1, 2).reshape({batch, length, shape.heads * shape.head_size}).to(at::kFloat);
}

}  // namespace penstock::kernels
