#include "kernels/cuda/paged_attention.h"

#include <cmath>

#include "base/error.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/place.h"

namespace penstock::kernels::cuda {
namespace {

static_assert(kAttentionPart == kPartPositions);
static_assert(sizeof(Tile) == sizeof(int4), "a kernel reads a tile at once");

constexpr int64_t kMostHeadSize = 256;
constexpr int64_t kMostPartials = int64_t{1} << 24;  // floats

template <typename T>
void append(std::vector<int32_t>& numbers, const std::vector<T>& more) {
  const auto* first = reinterpret_cast<const int32_t*>(more.data());
  numbers.insert(numbers.end(), first, first + more.size() * sizeof(T) / sizeof(int32_t));
}

void require_pages(const Tensor& cache, const Tensor& qkv) {
  PENSTOCK_CHECK(cache.device() == qkv.device() && cache.is_contiguous() && reinterpret_cast<uintptr_t>(cache.data_ptr()) % 16 == 0,
                 "attention: pages on {} without gaps from a multiple of 16 bytes on expected, found {} on {}", qkv.device().str(),
                 cache.is_contiguous() ? "no gaps" : "gaps", cache.device().str());
}

}  // namespace

bool takes_attention(const AttentionShape& shape, const at::Device& device) { return device.is_cuda() && shape.head_size <= kMostHeadSize; }

StepTables::StepTables(std::span<const SequenceRows> sequences, const AttentionShape& shape, const at::Device& device) : step_(plan_tiles(sequences, shape)) {
  std::vector<int32_t> numbers;
  append(numbers, step_.tiles);
  append(numbers, step_.positions);
  append(numbers, step_.row_pages);
  append(numbers, step_.pages);
  numbers_ = at::tensor(numbers, at::kInt).to(device, /*non_blocking=*/true);
}

Tensor StepTables::positions() const { return numbers_.narrow(0, 4 * static_cast<int64_t>(step_.tiles.size()), rows()); }

Tensor paged_attention(const Tensor& qkv, const AttentionShape& shape, const Tensor& rotary, const StepTables& tables, Tensor& k_cache, Tensor& v_cache) {
  const StepTiles& step = tables.step_;
  require_pages(k_cache, qkv);
  require_pages(v_cache, qkv);
  PENSTOCK_CHECK(qkv.is_contiguous() && qkv.scalar_type() == at::kFloat && qkv.size(0) == tables.rows(), "attention: {} rows of {}, expected {} of float32 without gaps", qkv.size(0),
                 c10::toString(qkv.scalar_type()), tables.rows());
  const Place place(qkv);
  Tensor out = at::empty({qkv.size(0), shape.heads * shape.head_size}, qkv.options());
  if (step.tiles.empty()) return out;
  const auto* numbers = tables.numbers_.data_ptr<int32_t>();
  const auto* positions = numbers + 4 * step.tiles.size();
  PagedAttention job{.qkv = qkv.data_ptr<float>(),
                     .out = out.data_ptr<float>(),
                     .keys = k_cache.data_ptr(),
                     .values = v_cache.data_ptr(),
                     .is_bf16 = k_cache.scalar_type() == at::kBFloat16,
                     .heads = static_cast<int>(shape.heads),
                     .kv_heads = static_cast<int>(shape.kv_heads),
                     .head_size = static_cast<int>(shape.head_size),
                     .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_size)),
                     .rotary = rotary.data_ptr<float>(),
                     .positions = positions,
                     .row_pages = positions + tables.rows(),
                     .pages = positions + 2 * tables.rows(),
                     .tiles = reinterpret_cast<const int4*>(numbers),
                     .num_tiles = 0,
                     .queries = step.queries,
                     .parts = step.most_parts,
                     .first_row = 0,
                     .rows = static_cast<int>(tables.rows()),
                     .partial = nullptr};
  check(launch_store(job, place.stream), "store of keys and values", qkv);
  const int64_t of_row = shape.heads * step.most_parts * (shape.head_size + 2);
  for (const TileRange& range : ranges_of(step.tiles, step.most_parts == 1 ? tables.rows() : std::max<int64_t>(1, kMostPartials / of_row))) {
    const Tile &first = step.tiles[static_cast<size_t>(range.begin)], &last = step.tiles[static_cast<size_t>(range.end - 1)];
    job.tiles = reinterpret_cast<const int4*>(numbers) + range.begin;
    job.num_tiles = static_cast<int>(range.end - range.begin);
    job.first_row = first.row;
    job.rows = last.row + last.count - first.row;
    const Tensor partial = step.most_parts == 1 ? Tensor() : at::empty({job.rows * of_row}, qkv.options());
    job.partial = partial.defined() ? partial.data_ptr<float>() : nullptr;
    check(launch_attention(job, place.stream), "attention", qkv);
  }
  return out;
}

}  // namespace penstock::kernels::cuda
