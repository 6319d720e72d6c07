#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/attention_rows.h"
#include "kernels/matmul.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"

namespace penstock::kernels {
namespace {

// So many rows are computed straight from the pages; for more it pays to gather the pages first and use matrix products.
constexpr int kFewRows = 8;

// The keys of 16 positions for one element of a head: a vector register of AVX-512, two of AVX2.
using Lanes = float __attribute__((vector_size(kPageTokens * sizeof(float)), aligned(alignof(float)), may_alias));

// Keys and values of one layer: pages [pages, G, K, 16] and [pages, G, 16, K].
struct Cache {
  float* keys;
  float* values;
  int64_t head;  // elements of a page's head: 16·K
  int64_t page;  // of a page: G·16·K

  [[nodiscard]] int64_t at(int32_t number, int64_t kv_head) const { return number * page + kv_head * head; }
};

// Where a row of the step belongs.
struct Place {
  int32_t page;
  int position;
};

std::vector<Place> places_of(std::span<const SequenceRows> sequences) {
  std::vector<Place> places;
  for (const SequenceRows& rows : sequences) {
    for (int p = rows.start; p < rows.start + rows.count; ++p) places.push_back({rows.pages[static_cast<size_t>(p / kPageTokens)], p});
  }
  return places;
}

// Rotates a row in place (queries scaled too) and stores its keys and values.
void store_row(float* row, const AttentionShape& shape, const RotaryTable& rotary, const Place& place, const Cache& cache) {
  const int64_t size = shape.head_size, half = size / 2, lane = place.position % kPageTokens;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  float *k = row + shape.heads * size, *v = k + shape.kv_heads * size;
  rotate_heads(row, row, shape.heads, half, rotary.cos(place.position), rotary.sin(place.position), Rotation::kForward, scale);
  rotate_heads(k, k, shape.kv_heads, half, rotary.cos(place.position), rotary.sin(place.position), Rotation::kForward, 1.0f);
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    float* keys = cache.keys + cache.at(place.page, g) + lane;
    for (int64_t i = 0; i < size; ++i) keys[i * kPageTokens] = k[g * size + i];
    std::copy(v + g * size, v + (g + 1) * size, cache.values + cache.at(place.page, g) + lane * size);
  }
}

// scores[h][0 … 15] = q_h · the keys of a page, for H heads whose scores lie `stride` apart.
template <int H>
PENSTOCK_INLINE void score_page(const float* q, const float* keys, int64_t size, float* scores, int64_t stride) {
  Lanes sums[H] = {};
  for (int64_t i = 0; i < size; ++i) {
    Lanes key;
    std::memcpy(&key, keys + i * kPageTokens, sizeof(key));
    for (int h = 0; h < H; ++h) sums[h] += q[h * size + i] * key;
  }
  for (int h = 0; h < H; ++h) std::memcpy(scores + h * stride, &sums[h], sizeof(Lanes));
}

// Of all pages; positions behind the last key get a score, too, which nobody reads.
PENSTOCK_CLONES void score_pages(const float* q, int64_t heads, std::span<const int32_t> pages, const Cache& cache, int64_t kv_head, int64_t size, float* scores,
                                 int64_t stride) {
  for (size_t p = 0; p < pages.size(); ++p) {
    const float* keys = cache.keys + cache.at(pages[p], kv_head);
    float* to = scores + p * kPageTokens;
    int64_t h = 0;
    for (; h + 4 <= heads; h += 4) score_page<4>(q + h * size, keys, size, to + h * stride, stride);
    for (; h < heads; ++h) score_page<1>(q + h * size, keys, size, to + h * stride, stride);
  }
}

// out_h = Σ weight · value over the first `count` positions.
PENSTOCK_CLONES void mix_pages(const float* weights, int64_t stride, int64_t heads, std::span<const int32_t> pages, const Cache& cache, int64_t kv_head,
                               int64_t count, int64_t size, float* out) {
  std::fill(out, out + heads * size, 0.0f);
  for (int64_t first = 0; first < count; first += kPageTokens) {
    const float* values = cache.values + cache.at(pages[static_cast<size_t>(first / kPageTokens)], kv_head);
    const int64_t rows = std::min<int64_t>(kPageTokens, count - first);
    for (int64_t h = 0; h < heads; ++h) {
      const float* w = weights + h * stride + first;
      float* to = out + h * size;
      for (int64_t r = 0; r < rows; ++r) {
#pragma omp simd
        for (int64_t i = 0; i < size; ++i) to[i] += w[r] * values[r * size + i];
      }
    }
  }
}

// The query heads of one key head, a row after the other.
void attend_few(const float* qkv, float* out, const AttentionShape& shape, const SequenceRows& rows, const Cache& cache, int64_t kv_head, std::vector<float>& scores) {
  const int64_t size = shape.head_size, group = shape.heads / shape.kv_heads, first_head = kv_head * group * size;
  for (int r = 0; r < rows.count; ++r) {
    const int64_t keys = rows.start + r + 1;
    const auto pages = rows.pages.first(static_cast<size_t>((keys + kPageTokens - 1) / kPageTokens));
    const auto stride = static_cast<int64_t>(pages.size()) * kPageTokens;
    scores.resize(static_cast<size_t>(group * stride));
    score_pages(qkv + r * shape.row() + first_head, group, pages, cache, kv_head, size, scores.data(), stride);
    for (int64_t h = 0; h < group; ++h) causal_softmax(scores.data() + h * stride, 1, {.keys = keys, .first_visible = keys - 1}, nullptr);
    mix_pages(scores.data(), stride, group, pages, cache, kv_head, keys, size, out + r * shape.heads * size + first_head);
  }
}

// What a thread needs for many rows.
struct Scratch {
  std::vector<float> keys;    // [K, keys]
  std::vector<float> values;  // [keys, K]
  std::vector<float> scores;  // [rows, keys]
};

// The first `count` positions of one key head; of the last page all of the keys.
void gather(const SequenceRows& rows, const Cache& cache, int64_t kv_head, int64_t count, int64_t size, Scratch& scratch) {
  const int64_t pages = (count + kPageTokens - 1) / kPageTokens, width = pages * kPageTokens;
  scratch.keys.resize(static_cast<size_t>(size * width));
  scratch.values.resize(static_cast<size_t>(count * size));
  for (int64_t p = 0; p < pages; ++p) {
    const int64_t at = cache.at(rows.pages[static_cast<size_t>(p)], kv_head), first = p * kPageTokens;
    for (int64_t i = 0; i < size; ++i) std::memcpy(scratch.keys.data() + i * width + first, cache.keys + at + i * kPageTokens, sizeof(Lanes));
    const int64_t positions = std::min<int64_t>(kPageTokens, count - first);
    std::copy(cache.values + at, cache.values + at + positions * size, scratch.values.data() + first * size);
  }
}

// One query head of many rows.
void attend_many(const float* qkv, float* out, const AttentionShape& shape, const SequenceRows& rows, const Cache& cache, int64_t head, Scratch& scratch) {
  const int64_t size = shape.head_size, out_row = shape.heads * size, all = rows.start + rows.count;
  gather(rows, cache, head / (shape.heads / shape.kv_heads), all, size, scratch);
  const int64_t width = static_cast<int64_t>(scratch.keys.size()) / size;
  for (int64_t first = 0; first < rows.count; first += kQueryChunk) {
    const int64_t count = std::min<int64_t>(kQueryChunk, rows.count - first), keys = rows.start + first + count;
    scratch.scores.resize(static_cast<size_t>(count * keys));
    sgemm(Transpose::kNo, Transpose::kNo, count, keys, size, qkv + first * shape.row() + head * size, shape.row(), scratch.keys.data(), width, 0.0f,
          scratch.scores.data(), keys);
    causal_softmax(scratch.scores.data(), count, {.keys = keys, .first_visible = rows.start + first}, nullptr);
    sgemm(Transpose::kNo, Transpose::kNo, count, size, keys, scratch.scores.data(), keys, scratch.values.data(), size, 0.0f, out + first * out_row + head * size,
          out_row);
  }
}

void check(const Tensor& qkv, const AttentionShape& shape, std::span<const SequenceRows> sequences, const Tensor& k_cache, const Tensor& v_cache) {
  PENSTOCK_CHECK(qkv.dim() == 2 && qkv.size(-1) == shape.row() && qkv.is_contiguous(), "attention: rows of {} elements, expected {}", qkv.size(-1), shape.row());
  PENSTOCK_CHECK(k_cache.size(1) == shape.kv_heads && k_cache.size(2) == shape.head_size && k_cache.size(3) == kPageTokens && v_cache.numel() == k_cache.numel(),
                 "attention: pages of {} heads of {} elements, expected {} of {}", k_cache.size(1), k_cache.size(2), shape.kv_heads, shape.head_size);
  int64_t rows = 0;
  for (const SequenceRows& s : sequences) {
    PENSTOCK_CHECK(s.start >= 0 && s.count > 0 && static_cast<size_t>(s.start + s.count) <= s.pages.size() * kPageTokens,
                   "attention: positions {}+{} of a sequence with {} pages", s.start, s.count, s.pages.size());
    for (const int32_t page : s.pages) PENSTOCK_CHECK(page >= 0 && page < k_cache.size(0), "attention: page {} of {}", page, k_cache.size(0));
    rows += s.count;
  }
  PENSTOCK_CHECK(rows == qkv.size(0), "attention: sequences have {} rows, qkv has {}", rows, qkv.size(0));
}

}  // namespace

Tensor cached_attention(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, std::span<const SequenceRows> sequences,
                        Tensor& k_cache, Tensor& v_cache) {
  check(qkv, shape, sequences, k_cache, v_cache);
  const int64_t head = shape.head_size * kPageTokens, out_row = shape.heads * shape.head_size;
  const Cache cache{k_cache.data_ptr<float>(), v_cache.data_ptr<float>(), head, shape.kv_heads * head};
  Tensor out = at::empty({qkv.size(0), out_row}, qkv.options());
  float *in = qkv.data_ptr<float>(), *to = out.data_ptr<float>();
  const std::vector<Place> places = places_of(sequences);
  // All are stored before any is read: a sequence may share a page that another one fills in this very step.
  parallel_for(0, qkv.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) store_row(in + r * shape.row(), shape, rotary, places[static_cast<size_t>(r)], cache);
  });
  std::vector<std::pair<const SequenceRows*, int64_t>> few;  // and their first rows
  int64_t row = 0;
  for (const SequenceRows& rows : sequences) {
    if (rows.count <= kFewRows) {
      few.emplace_back(&rows, row);
    } else {
      parallel_for(0, shape.heads, 1, [&](int64_t begin, int64_t end) {
        Scratch scratch;
        for (int64_t h = begin; h < end; ++h) attend_many(in + row * shape.row(), to + row * out_row, shape, rows, cache, h, scratch);
      });
    }
    row += rows.count;
  }
  parallel_for(0, static_cast<int64_t>(few.size()) * shape.kv_heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> scores;
    for (int64_t task = begin; task < end; ++task) {
      const auto& [rows, first] = few[static_cast<size_t>(task / shape.kv_heads)];
      attend_few(in + first * shape.row(), to + first * out_row, shape, *rows, cache, task % shape.kv_heads, scores);
    }
  });
  return out;
}

}  // namespace penstock::kernels
