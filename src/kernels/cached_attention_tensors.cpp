#include "kernels/cached_attention_tensors.h"

#include <ATen/TensorIndexing.h>

#include <cmath>
#include <limits>

namespace penstock::kernels {
namespace {

// x [N, heads, K]: the pair of element i is element i + K/2.
Tensor rotate(const Tensor& x, const StepRows::Rotation& r) {
  const auto halves = x.chunk(2, -1);
  return at::addcmul(x * r.cos, at::cat({halves[1], halves[0]}, -1), r.sin);
}

// keys, values [N, G, K]: each row to its place in its page.
void store(const Tensor& keys, const Tensor& values, const StepRows& rows, Tensor& k_cache, Tensor& v_cache) {
  const auto all = at::indexing::Slice();
  k_cache.index_put_({rows.pages(), all, all, rows.lanes()}, keys.to(k_cache.scalar_type()));
  v_cache.index_put_({rows.pages(), all, rows.lanes()}, values.to(v_cache.scalar_type()));
}

// queries [S·C, H, K], rotated -> [S·C, H·K].
Tensor attend(const Tensor& queries, const AttentionShape& shape, const RowGroup& group, const Tensor& k_cache, const Tensor& v_cache) {
  const int64_t s = group.sequences, c = group.rows, l = group.positions(), g = shape.kv_heads, k = shape.head_size, m = shape.heads / g;
  const Tensor keys = k_cache.view({-1, kPageTokens}).index_select(0, group.keys).to(at::kFloat).view({s * g, k, l});
  // What has the weight 0 must still be a number.
  const Tensor values = v_cache.view({-1, kPageTokens * k}).index_select(0, group.values).to(at::kFloat).view({s, g, l, k}).masked_fill_(group.beyond, 0).view({s * g, l, k});
  const Tensor grouped = (queries / std::sqrt(static_cast<double>(k))).view({s, c, g, m, k}).permute({0, 2, 3, 1, 4});  // [S, G, H/G, C, K]
  std::vector<Tensor> parts;
  for (int64_t first = 0; first < c; first += group.rows_at_once) {
    const int64_t rows = std::min(group.rows_at_once, c - first);
    Tensor scores = at::bmm(grouped.narrow(3, first, rows).reshape({s * g, m * rows, k}), keys);
    scores.view({s, g, m, rows, l}).masked_fill_(group.hidden.narrow(3, first, rows), -std::numeric_limits<double>::infinity());
    parts.push_back(at::bmm(at::softmax(scores, -1), values).view({s, g, m, rows, k}).permute({0, 3, 1, 2, 4}));
  }
  return (parts.size() == 1 ? parts[0] : at::cat(parts, 1)).reshape({s * c, shape.heads * k});
}

}  // namespace

Tensor cached_attention_tensors(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, StepRows& rows, Tensor& k_cache, Tensor& v_cache) {
  const int64_t h = shape.heads, g = shape.kv_heads;
  const Tensor heads = qkv.view({qkv.size(0), h + 2 * g, shape.head_size});
  const Tensor rotated = rotate(heads.narrow(1, 0, h + g), rows.rotation(rotary));
  // All are stored before any is read: a sequence may share a page that another one fills in this very step.
  store(rotated.narrow(1, h, g), heads.narrow(1, h + g, g), rows, k_cache, v_cache);
  const Tensor queries = rotated.narrow(1, 0, h);
  if (rows.groups().size() == 1) return attend(queries, shape, rows.groups()[0], k_cache, v_cache);
  Tensor out = at::empty({qkv.size(0), h * shape.head_size}, qkv.options());
  for (const RowGroup& group : rows.groups()) out.index_copy_(0, group.index, attend(queries.index_select(0, group.index), shape, group, k_cache, v_cache));
  return out;
}

}  // namespace penstock::kernels
