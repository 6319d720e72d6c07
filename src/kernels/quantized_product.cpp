#include "kernels/quantized_product.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/amx.h"
#include "kernels/parallel.h"
#include "kernels/quantized_rows.h"
#include "kernels/quantized_tiles.h"
#include "tensor/cpu_features.h"

namespace penstock::kernels {
namespace {

// Rows of x that one tile is multiplied with at once: few enough to stay in the second cache.
constexpr int64_t kRowBlock = QuantizedRows::kRowBlock;
constexpr int64_t kTilesTogether = 4;  // whose rows of x follow each other: x passes by once for all of them, and W comes from memory once
constexpr int64_t kRowsPerTask = 8;    // of those that are rounded

// Rows [first, end) of x times tile `tile` of a part.
struct Task {
  const QuantizedPart& part;
  int64_t tile, first, end;
};

void run(const Task& task, const QuantizedRows& x, const TileKernels& kernels, float* y, int64_t width) {
  const QuantizedPart& part = task.part;
  const int64_t tile_block = task.tile * x.blocks(), scale = tile_block * kTileRows;
  const int64_t row = part.first_row + task.tile * kTileRows, present = std::min(kTileRows, part.rows - task.tile * kTileRows);
  TileProduct product{part.quants + tile_block * part.tile_block_bytes(),
                      part.scales + scale,
                      part.minima == nullptr ? nullptr : part.minima + scale,
                      &x,
                      task.first,
                      task.end,
                      y + task.first * width + row,
                      width};
  const auto multiply_tile = kernels.multiply[static_cast<int>(part.format)];
  if (present == kTileRows) return multiply_tile(product);
  float whole[kRowBlock * kTileRows];  // the last tile: not all of its rows are W's
  product.y = whole;
  product.stride = kTileRows;
  multiply_tile(product);
  for (int64_t m = task.first; m < task.end; ++m) {
    const float* from = whole + (m - task.first) * kTileRows;
    std::copy(from, from + present, y + m * width + row);
  }
}

int64_t row_blocks_of(int64_t rows) { return (rows + kRowBlock - 1) / kRowBlock; }

Task task_at(std::span<const QuantizedPart> parts, int64_t tiles, int64_t index, int64_t rows) {
  const int64_t per_group = kTilesTogether * row_blocks_of(rows), tile_group = index / per_group * kTilesTogether, within = index % per_group;
  const int64_t together = std::min(kTilesTogether, tiles - tile_group), first = within / together * kRowBlock;
  int64_t tile = tile_group + within % together;
  size_t part = 0;
  while (tile >= parts[part].tiles()) tile -= parts[part++].tiles();
  return {parts[part], tile, first, std::min(rows, first + kRowBlock)};
}

void multiply_rounded(const QuantizedWeight& weight, const float* x, int64_t rows, float* y, const TileKernels& kernels) {
  QuantizedRows rounded(rows, weight.columns(), kernels.group_rows);
  if (rows < 2 * kRowsPerTask) {
    rounded.set(0, rows, x);
  } else {
    parallel_for(0, rows, kRowsPerTask, [&](int64_t first, int64_t end) { rounded.set(first, end - first, x + first * weight.columns()); });
  }
  const auto parts = weight.parts();
  int64_t tiles = 0;
  for (const QuantizedPart& part : parts) tiles += part.tiles();
  parallel_for(0, row_blocks_of(rows) * tiles, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) run(task_at(parts, tiles, i, rows), rounded, kernels, y, weight.rows());
  });
}

// What rounding loses of the rows with a peak follows as further rows of the same product, so that W is read once.
void multiply_with_rests(const QuantizedWeight& weight, const float* x, int64_t rows, const std::vector<int64_t>& peaked, float* y, const TileKernels& kernels) {
  const int64_t columns = weight.columns(), width = weight.rows(), all = rows + static_cast<int64_t>(peaked.size());
  std::vector<float> taken(static_cast<size_t>(all * columns)), products(static_cast<size_t>(all * width));
  float* rest = std::copy(x, x + rows * columns, taken.data());
  for (const int64_t row : peaked) rounding_rest(x + row * columns, columns, std::exchange(rest, rest + columns));
  multiply_rounded(weight, taken.data(), all, products.data(), kernels);
  const float* add = products.data() + rows * width;
  std::copy(static_cast<const float*>(products.data()), add, y);
  for (const int64_t row : peaked) {
    float* to = y + row * width;
    for (int64_t i = 0; i < width; ++i) to[i] += *add++;
  }
}

}  // namespace

const TileKernels& best_tile_kernels() {
  static const TileKernels& best = [&]() -> const TileKernels& {
    const tensor::CpuFeatures cpu = tensor::cpu_features();
    if (has_amx()) return amx_tile_kernels();
    if (cpu.avx512_vnni) return avx512_tile_kernels();
    return cpu.avx2 && cpu.f16c ? avx2_tile_kernels() : plain_tile_kernels();
  }();
  return best;
}

const char* quantized_instruction_set() { return best_tile_kernels().name; }

void multiply(const QuantizedWeight& weight, const float* x, int64_t rows, float* y) { multiply(weight, x, rows, y, best_tile_kernels()); }

void multiply(const QuantizedWeight& weight, const float* x, int64_t rows, float* y, const TileKernels& kernels) {
  if (rows == 0) return;
  std::vector<int64_t> peaked;
  for (int64_t row = 0; row < rows; ++row) {
    if (has_peak(x + row * weight.columns(), weight.columns())) peaked.push_back(row);
  }
  if (peaked.empty()) return multiply_rounded(weight, x, rows, y, kernels);
  multiply_with_rests(weight, x, rows, peaked, y, kernels);
}

}  // namespace penstock::kernels
