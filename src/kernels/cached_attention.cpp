#include <cmath>
#include <vector>

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/attention_rows.h"

namespace penstock::kernels {
namespace {

// The cache of one slot: [G, max_length, K] keys and values.
struct SlotCache {
  float* k;
  float* v;
  int64_t max_length;
};

// Rotates the sequence's new rows in place (queries scaled too) and stores their keys and values.
void store_rows(float* qkv, const AttentionShape& shape, const RotaryTable& rotary, const SequenceRows& rows, const SlotCache& cache) {
  const int64_t size = shape.head_size, half = size / 2;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (int64_t r = 0; r < rows.count; ++r) {
    const int64_t position = rows.start + r;
    float *q = qkv + r * shape.row(), *k = q + shape.heads * size, *v = k + shape.kv_heads * size;
    rotate_heads(q, q, shape.heads, half, rotary.cos(position), rotary.sin(position), Rotation::kForward, scale);
    rotate_heads(k, k, shape.kv_heads, half, rotary.cos(position), rotary.sin(position), Rotation::kForward, 1.0f);
    for (int64_t g = 0; g < shape.kv_heads; ++g) {
      std::copy(k + g * size, k + (g + 1) * size, cache.k + (g * cache.max_length + position) * size);
      std::copy(v + g * size, v + (g + 1) * size, cache.v + (g * cache.max_length + position) * size);
    }
  }
}

void attend_head(const float* qkv, float* out, const AttentionShape& shape, const SequenceRows& rows, const SlotCache& cache, int64_t head,
                 std::vector<float>& scores) {
  const int64_t size = shape.head_size, kv_head = head / (shape.heads / shape.kv_heads), out_row = shape.heads * size;
  const ConstRows k{cache.k + kv_head * cache.max_length * size, size}, v{cache.v + kv_head * cache.max_length * size, size};
  for (int64_t first = 0; first < rows.count; first += kQueryChunk) {
    const int64_t count = std::min<int64_t>(kQueryChunk, rows.count - first), keys = rows.start + first + count;
    scores.resize(static_cast<size_t>(count * keys));
    attend({qkv + first * shape.row() + head * size, shape.row()}, k, v, count, {.keys = keys, .first_visible = rows.start + first}, size,
           scores.data(), out + first * out_row + head * size, out_row, nullptr);
  }
}

}  // namespace

Tensor cached_attention(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, std::span<const SequenceRows> sequences,
                        Tensor& k_cache, Tensor& v_cache) {
  PENSTOCK_CHECK(qkv.size(-1) == shape.row() && qkv.is_contiguous(), "attention: rows of {} elements, expected {}", qkv.size(-1), shape.row());
  const int64_t max_length = k_cache.size(2), slot_size = shape.kv_heads * max_length * shape.head_size;
  const int64_t out_row = shape.heads * shape.head_size;
  Tensor out = at::empty({qkv.size(0), out_row}, qkv.options());
  int64_t row = 0;
  for (const SequenceRows& rows : sequences) {
    PENSTOCK_CHECK(rows.slot >= 0 && rows.slot < k_cache.size(0) && rows.start >= 0 && rows.start + rows.count <= max_length,
                   "attention: positions {}+{} of slot {} in a cache of {} slots of {}", rows.start, rows.count, rows.slot, k_cache.size(0),
                   max_length);
    const SlotCache cache{k_cache.data_ptr<float>() + rows.slot * slot_size, v_cache.data_ptr<float>() + rows.slot * slot_size, max_length};
    float* in = qkv.data_ptr<float>() + row * shape.row();
    float* to = out.data_ptr<float>() + row * out_row;
    store_rows(in, shape, rotary, rows, cache);
    at::parallel_for(0, shape.heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<float> scores;
      for (int64_t head = begin; head < end; ++head) attend_head(in, to, shape, rows, cache, head, scores);
    });
    row += rows.count;
  }
  PENSTOCK_CHECK(row == qkv.size(0), "attention: sequences have {} rows, qkv has {}", row, qkv.size(0));
  return out;
}

}  // namespace penstock::kernels
