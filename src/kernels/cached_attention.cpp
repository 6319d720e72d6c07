#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "kernels/attention.h"
#include "kernels/attention_rows.h"
#include "kernels/bfloat16.h"
#include "kernels/cached_attention_tensors.h"
#include "kernels/parallel.h"
#include "kernels/simd.h"
#include "kernels/step_rows.h"
#include "tensor/cpu_features.h"

namespace penstock::kernels {
namespace {

// Rows times heads that are worked on at once, so that keys and values are read once for all of them.
constexpr int64_t kQueries = 32;

// A register of AVX2. gcc 12 takes vectors of 64 bytes through memory where there is no AVX-512, and was five times slower.
constexpr int kLane = 8;
using Lane = float __attribute__((vector_size(kLane * sizeof(float))));
using LaneInMemory = float __attribute__((vector_size(kLane * sizeof(float)), aligned(alignof(float)), may_alias));
PENSTOCK_INLINE const LaneInMemory& lane_at(const float* p) { return *reinterpret_cast<const LaneInMemory*>(p); }
PENSTOCK_INLINE LaneInMemory& lane_at(float* p) { return *reinterpret_cast<LaneInMemory*>(p); }
constexpr int kColumns = 2 * kLane;
static_assert(kColumns == kPageTokens, "the scores of a page are summed in one go");

// A lane of values in memory as floats.
PENSTOCK_INLINE void load(const float* from, Lane& to) { to = lane_at(from); }
PENSTOCK_INLINE void load(const Bfloat16* from, Lane& to) {
  using Halves = Bfloat16 __attribute__((vector_size(kLane * sizeof(Bfloat16))));
  using Bits = uint32_t __attribute__((vector_size(kLane * sizeof(uint32_t))));
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Bits bits = __builtin_convertvector(halves, Bits) << 16;
  std::memcpy(&to, &bits, sizeof to);
}

// Keys and values of one layer: pages [pages, G, K, 16] and [pages, G, 16, K].
template <typename E>
struct Cache {
  E* keys;
  E* values;
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
template <typename E>
void store_row(float* row, const AttentionShape& shape, const RotaryTable& rotary, const Place& place, const Cache<E>& cache) {
  const int64_t size = shape.head_size, half = size / 2, lane = place.position % kPageTokens;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  float *k = row + shape.heads * size, *v = k + shape.kv_heads * size;
  rotate_heads(row, row, shape.heads, half, rotary.cos(place.position), rotary.sin(place.position), Rotation::kForward, scale);
  rotate_heads(k, k, shape.kv_heads, half, rotary.cos(place.position), rotary.sin(place.position), Rotation::kForward, 1.0f);
  for (int64_t g = 0; g < shape.kv_heads; ++g) {
    E *keys = cache.keys + cache.at(place.page, g) + lane, *values = cache.values + cache.at(place.page, g) + lane * size;
    for (int64_t i = 0; i < size; ++i) round_to(k[g * size + i], keys[i * kPageTokens]);
    for (int64_t i = 0; i < size; ++i) round_to(v[g * size + i], values[i]);
  }
}

// A product of H rows with a matrix, 16 columns of it: to[h][0 … 15] += Σ_i left[h][i] · right[i][0 … 15].
template <typename E>
struct Columns {
  const float* left;
  int64_t left_row;
  const E* right;
  const E* next;  // the right one of the next call, asked for while this one is used
  int64_t right_row;
  int64_t count;  // of i
  float* to;
  int64_t to_row;

  [[nodiscard]] Columns from_row(int64_t h) const { return {left + h * left_row, left_row, right, next, right_row, count, to + h * to_row, to_row}; }
};

template <int H, typename E>
PENSTOCK_INLINE void add_products(const Columns<E>& c) {
  Lane low[H], high[H];
#pragma GCC unroll 4
  for (int h = 0; h < H; ++h) {
    low[h] = lane_at(c.to + h * c.to_row);
    high[h] = lane_at(c.to + h * c.to_row + kLane);
  }
  for (int64_t i = 0; i < c.count; ++i) {
    Lane right_low, right_high;
    load(c.right + i * c.right_row, right_low);
    load(c.right + i * c.right_row + kLane, right_high);
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

template <typename E>
PENSTOCK_INLINE void add_products(const Columns<E>& c, int64_t rows) {
  int64_t h = 0;
  for (; h + 4 <= rows; h += 4) add_products<4>(c.from_row(h));
  if (rows - h == 3) add_products<3>(c.from_row(h));
  if (rows - h == 2) add_products<2>(c.from_row(h));
  if (rows - h == 1) add_products<1>(c.from_row(h));
}

// Queries that share a key head, and what they see.
template <typename E>
struct Block {
  const float* queries;  // [rows, K]
  int64_t rows;
  std::span<const int32_t> pages;
  const Cache<E>& cache;
  int64_t kv_head;
  int64_t positions;  // that the last query sees
  int64_t size;       // K
  float* scores;      // [rows, 16 · pages]
  float* mixed;       // [rows, K]

  [[nodiscard]] int64_t width() const { return static_cast<int64_t>(pages.size()) * kPageTokens; }
  [[nodiscard]] int64_t place(size_t page) const { return cache.at(pages[std::min(page, pages.size() - 1)], kv_head); }
};

// scores[m][p] = q_m · key p of all pages; positions behind the last key get a score, too, which nobody reads.
template <typename E>
PENSTOCK_INLINE void score(const Block<E>& b) {
  std::fill(b.scores, b.scores + b.rows * b.width(), 0.0f);
  for (size_t p = 0; p < b.pages.size(); ++p) {
    const E *keys = b.cache.keys + b.place(p), *next = b.cache.keys + b.place(p + 1);
    add_products(Columns<E>{b.queries, b.size, keys, next, kPageTokens, b.size, b.scores + p * kPageTokens, b.width()}, b.rows);
  }
}

// mixed_m = Σ weight · value over the positions; what a query does not see has the weight 0.
template <typename E>
PENSTOCK_INLINE void mix(const Block<E>& b) {
  std::fill(b.mixed, b.mixed + b.rows * b.size, 0.0f);
  const int64_t whole = b.size - b.size % kColumns;
  for (int64_t first = 0; first < b.positions; first += kPageTokens) {
    const auto p = static_cast<size_t>(first / kPageTokens);
    const E *values = b.cache.values + b.place(p), *next = b.cache.values + b.place(p + 1);
    const float* weights = b.scores + first;
    const int64_t count = std::min<int64_t>(kPageTokens, b.positions - first);
    for (int64_t i = 0; i < whole; i += kColumns) add_products(Columns<E>{weights, b.width(), values + i, next + i, b.size, count, b.mixed + i, b.size}, b.rows);
    for (int64_t i = whole; i < b.size; ++i) {
      for (int64_t m = 0; m < b.rows; ++m) {
        for (int64_t r = 0; r < count; ++r) b.mixed[m * b.size + i] += weights[m * b.width() + r] * value_of(values[r * b.size + i]);
      }
    }
  }
}

// Both, with fused products where the processor has them: target_clones cannot ask for AVX2 and FMA together.
template <typename E>
struct BlockKernels {
  void (*score)(const Block<E>& block);
  void (*mix)(const Block<E>& block);
};

template <typename E>
void score_plain(const Block<E>& block) { score(block); }
template <typename E>
void mix_plain(const Block<E>& block) { mix(block); }

#if defined(__x86_64__)
template <typename E>
__attribute__((target("avx2,fma"))) void score_avx2(const Block<E>& block) { score(block); }
template <typename E>
__attribute__((target("avx2,fma"))) void mix_avx2(const Block<E>& block) { mix(block); }

template <typename E>
BlockKernels<E> best_kernels() {
  static const bool has_avx2 = tensor::cpu_features().avx2;
  return has_avx2 ? BlockKernels<E>{score_avx2<E>, mix_avx2<E>} : BlockKernels<E>{score_plain<E>, mix_plain<E>};
}
#else
template <typename E>
BlockKernels<E> best_kernels() { return {score_plain<E>, mix_plain<E>}; }
#endif

// Some consecutive rows of a sequence, and the query heads of one key head.
struct Task {
  const SequenceRows& sequence;
  int64_t step_row;  // the first of these rows in the step
  int position;      // and in the sequence
  int count;
  int64_t kv_head;
};

std::vector<Task> tasks_of(std::span<const SequenceRows> sequences, const AttentionShape& shape) {
  const auto rows_at_once = static_cast<int>(std::max<int64_t>(1, kQueries / (shape.heads / shape.kv_heads)));
  std::vector<Task> tasks;
  int64_t step_row = 0;
  for (const SequenceRows& sequence : sequences) {
    for (int first = 0; first < sequence.count; first += rows_at_once) {
      const int count = std::min(rows_at_once, sequence.count - first);
      for (int64_t g = 0; g < shape.kv_heads; ++g) tasks.push_back({sequence, step_row + first, sequence.start + first, count, g});
    }
    step_row += sequence.count;
  }
  return tasks;
}

// What a thread needs for a task.
struct Scratch {
  std::vector<float> queries, scores, mixed;
};

// qkv and out begin at the task's first row. What a query gets depends on itself, and on what it sees, alone: the rows beside it only
// add products with zero, which change nothing as long as all values are finite.
template <typename E>
void attend_task(const Task& task, const float* qkv, float* out, const AttentionShape& shape, const Cache<E>& cache, Scratch& scratch) {
  const int64_t size = shape.head_size, group = shape.heads / shape.kv_heads, of_row = group * size, first_head = task.kv_head * of_row;
  const int64_t rows = task.count * group, positions = task.position + task.count, num_pages = (positions + kPageTokens - 1) / kPageTokens;
  scratch.queries.resize(static_cast<size_t>(rows * size));
  scratch.mixed.resize(static_cast<size_t>(rows * size));
  scratch.scores.resize(static_cast<size_t>(rows * num_pages * kPageTokens));
  for (int64_t r = 0; r < task.count; ++r) std::copy_n(qkv + r * shape.row() + first_head, of_row, scratch.queries.data() + r * of_row);
  const Block<E> block{scratch.queries.data(), rows, task.sequence.pages.first(static_cast<size_t>(num_pages)), cache, task.kv_head, positions, size,
                       scratch.scores.data(), scratch.mixed.data()};
  const BlockKernels<E> kernels = best_kernels<E>();
  kernels.score(block);
  for (int64_t m = 0; m < rows; ++m) {
    float* scores = block.scores + m * block.width();
    const int64_t keys = task.position + m / group + 1;
    causal_softmax(scores, 1, {.keys = keys, .first_visible = keys - 1}, nullptr);
    std::fill(scores + keys, scores + block.width(), 0.0f);
  }
  kernels.mix(block);
  for (int64_t r = 0; r < task.count; ++r) std::copy_n(scratch.mixed.data() + r * of_row, of_row, out + r * shape.heads * size + first_head);
}

template <typename E>
void attend_all(const Tensor& qkv, Tensor& out, const AttentionShape& shape, const RotaryTable& rotary, std::span<const SequenceRows> sequences, const Cache<E>& cache) {
  float *in = qkv.data_ptr<float>(), *to = out.data_ptr<float>();
  const std::vector<Place> places = places_of(sequences);
  // All are stored before any is read: a sequence may share a page that another one fills in this very step.
  parallel_for(0, qkv.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) store_row(in + r * shape.row(), shape, rotary, places[static_cast<size_t>(r)], cache);
  });
  const std::vector<Task> tasks = tasks_of(sequences, shape);
  parallel_for(0, static_cast<int64_t>(tasks.size()), 1, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      const Task& task = tasks[static_cast<size_t>(i)];
      attend_task(task, in + task.step_row * shape.row(), to + task.step_row * out.size(1), shape, cache, scratch);
    }
  });
}

void check(const Tensor& qkv, const AttentionShape& shape, const Tensor& k_cache, const Tensor& v_cache) {
  PENSTOCK_CHECK(qkv.dim() == 2 && qkv.size(-1) == shape.row() && qkv.is_contiguous(), "attention: rows of {} elements, expected {}", qkv.size(-1), shape.row());
  PENSTOCK_CHECK(k_cache.size(1) == shape.kv_heads && k_cache.size(2) == shape.head_size && k_cache.size(3) == kPageTokens && v_cache.numel() == k_cache.numel(),
                 "attention: pages of {} heads of {} elements, expected {} of {}", k_cache.size(1), k_cache.size(2), shape.kv_heads, shape.head_size);
  PENSTOCK_CHECK(k_cache.scalar_type() == v_cache.scalar_type() && (k_cache.scalar_type() == at::kFloat || k_cache.scalar_type() == at::kBFloat16),
                 "attention: pages of {} and {}, expected both of float32 or of bfloat16", c10::toString(k_cache.scalar_type()), c10::toString(v_cache.scalar_type()));
}

void check_rows(int64_t rows, const Tensor& qkv) {
  PENSTOCK_CHECK(rows == qkv.size(0), "attention: sequences have {} rows, qkv has {}", rows, qkv.size(0));
}

}  // namespace

// The one place that says what computes.
Tensor cached_attention(const Tensor& qkv, const AttentionShape& shape, const RotaryTable& rotary, std::span<const SequenceRows> sequences,
                        Tensor& k_cache, Tensor& v_cache, StepRows* step) {
  check(qkv, shape, k_cache, v_cache);
  if (step != nullptr) {
    check_rows(step->count(), qkv);
    if (const cuda::StepTables* own = step->own_tables()) return cuda::paged_attention(qkv, shape, step->table(rotary), *own, k_cache, v_cache);
    return cached_attention_tensors(qkv, shape, rotary, *step, k_cache, v_cache);
  }
  PENSTOCK_CHECK(qkv.is_cpu(), "attention: rows on {} without StepRows", qkv.device().str());
  check_rows(check_sequences(sequences, k_cache.size(0)), qkv);
  const int64_t head = shape.head_size * kPageTokens, page = shape.kv_heads * head;
  Tensor out = at::empty({qkv.size(0), shape.heads * shape.head_size}, qkv.options());
  if (k_cache.scalar_type() == at::kFloat) {
    attend_all(qkv, out, shape, rotary, sequences, Cache<float>{k_cache.data_ptr<float>(), v_cache.data_ptr<float>(), head, page});
  } else {
    const Cache<Bfloat16> cache{static_cast<Bfloat16*>(k_cache.data_ptr()), static_cast<Bfloat16*>(v_cache.data_ptr()), head, page};
    attend_all(qkv, out, shape, rotary, sequences, cache);
  }
  return out;
}

}  // namespace penstock::kernels
