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

// A register of AVX2. gcc 12 takes vectors of 64 bytes through memory where there is no AVX-512, and was five times slower.
constexpr int kLane = 8;
using Lane = float __attribute__((vector_size(kLane * sizeof(float))));
using LaneInMemory = float __attribute__((vector_size(kLane * sizeof(float)), aligned(alignof(float)), may_alias));
PENSTOCK_INLINE const LaneInMemory& lane_at(const float* p) { return *reinterpret_cast<const LaneInMemory*>(p); }
PENSTOCK_INLINE LaneInMemory& lane_at(float* p) { return *reinterpret_cast<LaneInMemory*>(p); }
constexpr int kColumns = 2 * kLane;
static_assert(kColumns == kPageTokens, "the scores of a page are summed in one go");

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

// A product of H rows with a matrix, 16 columns of it: to[h][0 … 15] += Σ_i left[h][i] · right[i][0 … 15].
struct Columns {
  const float* left;
  int64_t left_row;
  const float* right;
  const float* next;  // the right one of the next call, asked for while this one is used
  int64_t right_row;
  int64_t count;  // of i
  float* to;
  int64_t to_row;

  [[nodiscard]] Columns from_row(int64_t h) const { return {left + h * left_row, left_row, right, next, right_row, count, to + h * to_row, to_row}; }
};

template <int H>
PENSTOCK_INLINE void add_products(const Columns& c) {
  Lane low[H], high[H];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    low[h] = lane_at(c.to + h * c.to_row);
    high[h] = lane_at(c.to + h * c.to_row + kLane);
  }
  for (int64_t i = 0; i < c.count; ++i) {
    const Lane right_low = lane_at(c.right + i * c.right_row), right_high = lane_at(c.right + i * c.right_row + kLane);
    __builtin_prefetch(c.next + i * c.right_row);
#pragma GCC unroll 4
    for (int h = 0; h < H; ++h) {
      low[h] += c.left[h * c.left_row + i] * right_low;
      high[h] += c.left[h * c.left_row + i] * right_high;
    }
  }
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    lane_at(c.to + h * c.to_row) = low[h];
    lane_at(c.to + h * c.to_row + kLane) = high[h];
  }
}

PENSTOCK_INLINE void add_products(const Columns& c, int64_t heads) {
  int64_t h = 0;
  for (; h + 4 <= heads; h += 4) add_products<4>(c.from_row(h));
  if (heads - h == 3) add_products<3>(c.from_row(h));
  if (heads - h == 2) add_products<2>(c.from_row(h));
  if (heads - h == 1) add_products<1>(c.from_row(h));
}

// scores[h][p] = q_h · key p of all pages; positions behind the last key get a score, too, which nobody reads.
PENSTOCK_CLONES void score_pages(const float* q, int64_t heads, std::span<const int32_t> pages, const Cache& cache, int64_t kv_head, int64_t size, float* scores,
                                 int64_t stride) {
  std::fill(scores, scores + heads * stride, 0.0f);
  for (size_t p = 0; p < pages.size(); ++p) {
    const float *keys = cache.keys + cache.at(pages[p], kv_head), *next = p + 1 < pages.size() ? cache.keys + cache.at(pages[p + 1], kv_head) : keys;
    add_products({q, size, keys, next, kPageTokens, size, scores + p * kPageTokens, stride}, heads);
  }
}

// out_h = Σ weight · value over the first `count` positions.
PENSTOCK_CLONES void mix_pages(const float* weights, int64_t stride, int64_t heads, std::span<const int32_t> pages, const Cache& cache, int64_t kv_head,
                               int64_t count, int64_t size, float* out) {
  std::fill(out, out + heads * size, 0.0f);
  const int64_t whole = size - size % kColumns;
  for (int64_t first = 0; first < count; first += kPageTokens) {
    const auto p = static_cast<size_t>(first / kPageTokens);
    const float *values = cache.values + cache.at(pages[p], kv_head), *next = p + 1 < pages.size() ? cache.values + cache.at(pages[p + 1], kv_head) : values;
    const int64_t rows = std::min<int64_t>(kPageTokens, count - first);
    for (int64_t i = 0; i < whole; i += kColumns) add_products({weights + first, stride, values + i, next + i, size, rows, out + i, size}, heads);
    for (int64_t i = whole; i < size; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t r = 0; r < rows; ++r) out[h * size + i] += weights[h * stride + first + r] * values[r * size + i];
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
    for (int64_t i = 0; i < size; ++i) std::memcpy(scratch.keys.data() + i * width + first, cache.keys + at + i * kPageTokens, kPageTokens * sizeof(float));
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
