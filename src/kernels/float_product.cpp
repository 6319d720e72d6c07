#include "kernels/float_product.h"

#include <algorithm>

#include "kernels/amx.h"
#include "kernels/bf16_product.h"
#include "kernels/float_tiles.h"
#include "kernels/parallel.h"
#include "tensor/cpu_features.h"

namespace penstock::kernels {
namespace {

// What one thread works on at once stays in its second cache: 96 · 512 activations and 32 · 512 weights.
constexpr int64_t kRowBlock = 96, kWeightBlock = 32;
constexpr int64_t kColumnBlock = 512;  // a row's sum is that of its blocks, one after the other

template <typename W>
struct Product {
  const W* weight;
  const float* x;
  float* y;
  const ProductSizes& sizes;
  int rows_at_once;
  void (*add)(const FloatTile<W>& tile, int rows, int weights);
};

struct Range {
  int64_t begin, end;
};

// Columns from `column` on of one tile after the other.
template <typename W>
void add_block(const Product<W>& p, Range rows, Range outputs, int64_t column) {
  const int64_t width = p.sizes.columns, columns = std::min(kColumnBlock, width - column);
  for (int64_t o = outputs.begin; o < outputs.end; o += kWeightRows) {
    const auto weights = static_cast<int>(std::min<int64_t>(kWeightRows, outputs.end - o));
    for (int64_t m = rows.begin; m < rows.end; m += p.rows_at_once) {
      const FloatTile<W> tile{p.x + m * width + column, width, p.weight + o * width + column, width, columns, p.y + m * p.sizes.outputs + o, p.sizes.outputs};
      p.add(tile, static_cast<int>(std::min<int64_t>(p.rows_at_once, rows.end - m)), weights);
    }
  }
}

// Few rows leave the weights to the memory, which likes to be read straight on; many read them again from the cache.
template <typename W>
void run(const Product<W>& p, Range rows, Range outputs) {
  for (int64_t m = rows.begin; m < rows.end; ++m) std::fill(p.y + m * p.sizes.outputs + outputs.begin, p.y + m * p.sizes.outputs + outputs.end, 0.0f);
  const int64_t at_once = rows.end - rows.begin <= p.rows_at_once ? kWeightRows : kWeightBlock;
  for (int64_t o = outputs.begin; o < outputs.end; o += at_once) {
    const Range some{o, std::min(outputs.end, o + at_once)};
    for (int64_t column = 0; column < p.sizes.columns; column += kColumnBlock) add_block(p, rows, some, column);
  }
}

template <typename W>
void run_all(const Product<W>& p) {
  const int64_t weight_blocks = (p.sizes.outputs + kWeightBlock - 1) / kWeightBlock, row_blocks = (p.sizes.rows + kRowBlock - 1) / kRowBlock;
  parallel_for(0, row_blocks * weight_blocks, 1, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i) {
      const int64_t row = i / weight_blocks * kRowBlock, output = i % weight_blocks * kWeightBlock;
      run(p, {row, std::min(p.sizes.rows, row + kRowBlock)}, {output, std::min(p.sizes.outputs, output + kWeightBlock)});
    }
  });
}

}  // namespace

const FloatKernels& best_float_kernels() {
  static const FloatKernels& best = []() -> const FloatKernels& {
    const tensor::CpuFeatures cpu = tensor::cpu_features();
    if (cpu.avx512) return avx512_float_kernels();
    return cpu.avx2 ? avx2_float_kernels() : plain_float_kernels();
  }();
  return best;
}

const char* float_instruction_set() { return best_float_kernels().name; }

const char* bf16_instruction_set() { return has_amx() ? "AMX" : float_instruction_set(); }

void multiply(const float* weight, const float* x, float* y, const ProductSizes& sizes) { multiply(weight, x, y, sizes, best_float_kernels()); }

void multiply(const Bfloat16* weight, const float* x, float* y, const ProductSizes& sizes) {
  if (has_amx()) return multiply_by_amx(weight, x, y, sizes);
  multiply(weight, x, y, sizes, best_float_kernels());
}

void multiply(const float* weight, const float* x, float* y, const ProductSizes& sizes, const FloatKernels& kernels) {
  run_all(Product<float>{weight, x, y, sizes, kernels.rows_at_once, kernels.add_fp32});
}

void multiply(const Bfloat16* weight, const float* x, float* y, const ProductSizes& sizes, const FloatKernels& kernels) {
  run_all(Product<Bfloat16>{weight, x, y, sizes, kernels.rows_at_once, kernels.add_bf16});
}

}  // namespace penstock::kernels
