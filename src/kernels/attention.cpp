#include "kernels/attention.h"

#include <cmath>
#include <vector>

#include "base/error.h"
#include "kernels/attention_on_device.h"
#include "kernels/attention_rows.h"
#include "kernels/matmul.h"
#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

float score_scale(const AttentionShape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.head_size)); }

// The starts of all rows of a batch; null where each row is one document.
const int32_t* data_of(const Tensor& starts) { return starts.defined() ? starts.data_ptr<int32_t>() : nullptr; }

// Queries and keys rotated, queries also scaled; values copied. The inverse does the same to gradients.
Tensor rotate(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const int32_t* starts, Rotation direction) {
  const int64_t length = qkv.size(1), rows = qkv.size(0) * length, row = shape.row(), half = shape.head_size / 2;
  const int64_t q_size = shape.heads * shape.head_size, kv_size = shape.kv_heads * shape.head_size;
  Tensor out = at::empty_like(qkv);
  const float* from = qkv.data_ptr<float>();
  float* to = out.data_ptr<float>();
  at::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t position = r % length - (starts != nullptr ? starts[r] : 0);
      const float *in = from + r * row, *cos = rotary.cos(position), *sin = rotary.sin(position);
      float* dst = to + r * row;
      rotate_heads(in, dst, shape.heads, half, cos, sin, direction, score_scale(shape));
      rotate_heads(in + q_size, dst + q_size, shape.kv_heads, half, cos, sin, direction, 1.0f);
      std::copy(in + q_size + kv_size, in + row, dst + q_size + kv_size);
    }
  });
  return out;
}

// Where the heads of one sequence lie inside its rows of a [T, (H+2G)·K] block.
struct HeadOffsets {
  const AttentionShape& shape;
  [[nodiscard]] int64_t query(int64_t head) const { return head * shape.head_size; }
  [[nodiscard]] int64_t key(int64_t kv_head) const { return (shape.heads + kv_head) * shape.head_size; }
  [[nodiscard]] int64_t value(int64_t kv_head) const { return (shape.heads + shape.kv_heads + kv_head) * shape.head_size; }
};

// Query rows first … first + rows of one sequence: keys before `origin` are of documents that none of them belongs to.
struct Chunk {
  int64_t first, rows, origin;
  Visibility visibility;
};

// `starts` [T] of the sequence, or null.
Chunk chunk_at(int64_t first, int64_t length, const int32_t* starts) {
  const int64_t rows = std::min(kQueryChunk, length - first), origin = starts != nullptr ? starts[first] : 0;
  return {first, rows, origin,
          {.keys = first + rows - origin, .first_visible = first - origin, .starts = starts != nullptr ? starts + first : nullptr,
           .origin = static_cast<int32_t>(origin)}};
}

// One sequence and key head: out [T, H·K] and log_sums [H, T] of the query heads of its group.
void forward_group(const float* rotated, const AttentionShape& shape, int64_t length, const int32_t* starts, int64_t kv_head, float* out, float* log_sums,
                   std::vector<float>& scores) {
  const HeadOffsets at{shape};
  const int64_t row = shape.row(), per_group = shape.heads / shape.kv_heads, out_row = shape.heads * shape.head_size;
  for (int64_t head = kv_head * per_group; head < (kv_head + 1) * per_group; ++head) {
    for (int64_t first = 0; first < length; first += kQueryChunk) {
      const Chunk chunk = chunk_at(first, length, starts);
      const ConstRows k{rotated + at.key(kv_head) + chunk.origin * row, row}, v{rotated + at.value(kv_head) + chunk.origin * row, row};
      attend({rotated + at.query(head) + first * row, row}, k, v, chunk.rows, chunk.visibility, shape.head_size, scores.data(),
             out + first * out_row + head * shape.head_size, out_row, log_sums + head * length + first);
    }
  }
}

struct GroupGradients {
  const float* rotated;   // [T, (H+2G)·K]
  const float* out;       // [T, H·K]
  const float* dout;      // [T, H·K]
  const float* log_sums;  // [H, T]
  float* drotated;        // [T, (H+2G)·K], keys and values zeroed
  const int32_t* starts;  // [T], or null
};

// dS = P ∘ (dP − Σ dO·O), written over dp.
PENSTOCK_CLONES void score_gradients(const float* p, float* dp, const float* out, const float* dout, int64_t stride, int64_t rows,
                                     int64_t keys, int64_t head_size) {
  for (int64_t r = 0; r < rows; ++r) {
    float delta = 0;
#pragma omp simd reduction(+ : delta)
    for (int64_t i = 0; i < head_size; ++i) delta += out[r * stride + i] * dout[r * stride + i];
#pragma omp simd
    for (int64_t i = 0; i < keys; ++i) dp[r * keys + i] = p[r * keys + i] * (dp[r * keys + i] - delta);
  }
}

void backward_group(const GroupGradients& g, const AttentionShape& shape, int64_t length, int64_t kv_head, std::vector<float>& scores,
                    std::vector<float>& dscores) {
  const HeadOffsets at{shape};
  const int64_t row = shape.row(), size = shape.head_size, per_group = shape.heads / shape.kv_heads, out_row = shape.heads * size;
  for (int64_t head = kv_head * per_group; head < (kv_head + 1) * per_group; ++head) {
    for (int64_t first = 0; first < length; first += kQueryChunk) {
      const Chunk chunk = chunk_at(first, length, g.starts);
      const int64_t rows = chunk.rows, keys = chunk.visibility.keys, origin = chunk.origin * row;
      const float *k = g.rotated + at.key(kv_head) + origin, *v = g.rotated + at.value(kv_head) + origin;
      float *dk = g.drotated + at.key(kv_head) + origin, *dv = g.drotated + at.value(kv_head) + origin;
      const float* q = g.rotated + at.query(head) + first * row;
      const float *out = g.out + first * out_row + head * size, *dout = g.dout + first * out_row + head * size;
      float *p = scores.data(), *dp = dscores.data();
      sgemm(Transpose::kNo, Transpose::kYes, rows, keys, size, q, row, k, row, 0.0f, p, keys);
      causal_softmax_again(p, rows, chunk.visibility, g.log_sums + head * length + first);
      sgemm(Transpose::kYes, Transpose::kNo, keys, size, rows, p, keys, dout, out_row, 1.0f, dv, row);
      sgemm(Transpose::kNo, Transpose::kYes, rows, keys, size, dout, out_row, v, row, 0.0f, dp, keys);
      score_gradients(p, dp, out, dout, out_row, rows, keys, size);
      sgemm(Transpose::kNo, Transpose::kNo, rows, size, keys, dp, keys, k, row, 0.0f, g.drotated + at.query(head) + first * row, row);
      sgemm(Transpose::kYes, Transpose::kNo, keys, size, rows, dp, keys, q, row, 1.0f, dk, row);
    }
  }
}

Tensor forward_all(const Tensor& rotated, const AttentionShape& shape, const int32_t* starts, Tensor& log_sums) {
  const int64_t batch = rotated.size(0), length = rotated.size(1), row = shape.row(), out_row = shape.heads * shape.head_size;
  Tensor out = at::empty({batch, length, out_row}, rotated.options());
  log_sums = at::empty({batch, shape.heads, length}, rotated.options());
  const float* in = rotated.data_ptr<float>();
  float *op = out.data_ptr<float>(), *lp = log_sums.data_ptr<float>();
  at::parallel_for(0, batch * shape.kv_heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(static_cast<size_t>(std::min(kQueryChunk, length) * length));
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i / shape.kv_heads;
      forward_group(in + b * length * row, shape, length, starts != nullptr ? starts + b * length : nullptr, i % shape.kv_heads,
                    op + b * length * out_row, lp + b * shape.heads * length, scores);
    }
  });
  return out;
}

struct AttentionFunction : torch::autograd::Function<AttentionFunction> {
  static Tensor forward(AutogradContext* ctx, const Tensor& qkv, const AttentionShape* shape, const RotaryTable* rotary, const Tensor* starts) {
    Tensor rotated = rotate(qkv, *shape, *rotary, data_of(*starts), Rotation::kForward), log_sums;
    Tensor out = forward_all(rotated, *shape, data_of(*starts), log_sums);
    ctx->save_for_backward({rotated, out, log_sums, *starts});
    ctx->saved_data["heads"] = shape->heads;
    ctx->saved_data["kv_heads"] = shape->kv_heads;
    ctx->saved_data["head_size"] = shape->head_size;
    ctx->saved_data["rotary"] = reinterpret_cast<int64_t>(rotary);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const AttentionShape shape{ctx->saved_data["heads"].toInt(), ctx->saved_data["kv_heads"].toInt(), ctx->saved_data["head_size"].toInt()};
    const auto* rotary = reinterpret_cast<const RotaryTable*>(ctx->saved_data["rotary"].toInt());
    const auto saved = ctx->get_saved_variables();
    const Tensor &rotated = saved[0], &out = saved[1], &log_sums = saved[2];
    const int32_t* starts = data_of(saved[3]);
    const Tensor dout = grads[0].contiguous();
    const int64_t batch = rotated.size(0), length = rotated.size(1), row = shape.row(), out_row = shape.heads * shape.head_size;
    Tensor drotated = at::zeros_like(rotated);
    const GroupGradients all{rotated.data_ptr<float>(), out.data_ptr<float>(), dout.data_ptr<float>(), log_sums.data_ptr<float>(),
                             drotated.data_ptr<float>(), starts};
    at::parallel_for(0, batch * shape.kv_heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scores(static_cast<size_t>(std::min(kQueryChunk, length) * length)), dscores(scores.size());
      for (int64_t i = begin; i < end; ++i) {
        const int64_t b = i / shape.kv_heads;
        const GroupGradients one{all.rotated + b * length * row, all.out + b * length * out_row, all.dout + b * length * out_row,
                                 all.log_sums + b * shape.heads * length, all.drotated + b * length * row,
                                 starts != nullptr ? starts + b * length : nullptr};
        backward_group(one, shape, length, i % shape.kv_heads, scores, dscores);
      }
    });
    return {rotate(drotated, shape, *rotary, starts, Rotation::kInverse), Tensor(), Tensor(), Tensor()};
  }
};

void check_shape(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const Tensor& starts) {
  PENSTOCK_CHECK(qkv.size(-1) == shape.row(), "attention: rows of {} elements, expected ({} + 2·{})·{}", qkv.size(-1), shape.heads,
                 shape.kv_heads, shape.head_size);
  PENSTOCK_CHECK(shape.heads % shape.kv_heads == 0, "attention: {} heads do not divide among {} key heads", shape.heads, shape.kv_heads);
  PENSTOCK_CHECK(rotary.half() * 2 == shape.head_size, "attention: rotary table for heads of {}, not {}", rotary.half() * 2, shape.head_size);
  if (!starts.defined()) return;
  PENSTOCK_CHECK(starts.scalar_type() == at::kInt && starts.is_contiguous() && starts.dim() == 2 && starts.size(0) == qkv.size(0) && starts.size(1) == qkv.size(1),
                 "attention: document starts must be contiguous int32 of [{}, {}]", qkv.size(0), qkv.size(1));
  if (!starts.is_cpu()) return;  // asking would wait for the device
  const Tensor positions = at::arange(qkv.size(1), starts.options());
  PENSTOCK_CHECK(starts.numel() == 0 || (starts.ge(0).logical_and(starts.le(positions)).all().item<bool>() && at::diff(starts, 1, 1).ge(0).all().item<bool>()),
                 "attention: document starts must lie between 0 and their position and never fall");
}

}  // namespace

Tensor causal_attention(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const Tensor& starts, Compute compute) {
  check_shape(qkv, shape, rotary, starts);
  PENSTOCK_CHECK(qkv.size(1) <= rotary.max_positions(), "attention: {} positions, the table has {}", qkv.size(1), rotary.max_positions());
  if (!qkv.is_cpu()) return attention_on_device(qkv, shape, rotary, starts, compute);
  return AttentionFunction::apply(qkv.contiguous(), &shape, &rotary, &starts);
}

Tensor causal_attention_reference(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, const Tensor& starts) {
  const int64_t batch = qkv.size(0), length = qkv.size(1), half = rotary.half();
  const Tensor at_row = at::arange(length, at::TensorOptions(at::kLong).device(qkv.device())).unsqueeze(0);  // [1, T]
  const Tensor first = starts.defined() ? starts.to(qkv.device(), at::kLong) : at::zeros_like(at_row);       // [B or 1, T]
  // [B or 1, 1, T, K] of each position within its document
  const auto table = [&](const float* data) {
    const Tensor whole = at::from_blob(const_cast<float*>(data), {length, half}, at::kFloat).to(qkv.device());
    const Tensor rows = whole.index({at_row - first}).unsqueeze(1);
    return at::cat({rows, rows}, -1);
  };
  const Tensor cos = table(rotary.cos(0)), sin = table(rotary.sin(0));
  const auto rotated = [&](const Tensor& x) {
    const auto halves = x.chunk(2, -1);
    return x * cos + at::cat({-halves[1], halves[0]}, -1) * sin;
  };
  const auto parts = qkv.view({batch, length, shape.heads + 2 * shape.kv_heads, shape.head_size})
                         .transpose(1, 2)
                         .split_with_sizes({shape.heads, shape.kv_heads, shape.kv_heads}, 1);
  const int64_t per_group = shape.heads / shape.kv_heads;
  const Tensor q = rotated(parts[0]), k = rotated(parts[1]).repeat_interleave(per_group, 1), v = parts[2].repeat_interleave(per_group, 1);
  const Tensor hidden = at_row.unsqueeze(1).gt(at_row.unsqueeze(2)).logical_or(at_row.unsqueeze(1).lt(first.unsqueeze(2))).unsqueeze(1);  // [B or 1, 1, T, T]
  const Tensor scores = (at::matmul(q, k.transpose(-1, -2)) * static_cast<double>(score_scale(shape))).masked_fill(hidden, -INFINITY);
  return at::matmul(at::softmax(scores, -1), v).transpose(1, 2).reshape({batch, length, shape.heads * shape.head_size});
}

}  // namespace penstock::kernels
