#pragma once
// What starts each kernel: plain memory of the current device and a stream, torch-free. Private to src/kernels/cuda. All return at once; an error is one
// of the launch itself.
#include <cuda_runtime_api.h>

#include <cstdint>

namespace penstock::kernels::cuda {

// y[r] = x[r] / sqrt(mean(x[r]²) + eps) · weight, rows of `width`.
cudaError_t launch_rms_norm(const float* x, const float* weight, float* y, int64_t rows, int64_t width, float eps, cudaStream_t stream);

struct HeadNorm {
  const float* qkv;  // [rows, (heads + 2 · kv_heads) · head_size]
  const float* q_weight;
  const float* k_weight;
  float* out;
  int64_t rows;
  int heads;
  int kv_heads;
  int head_size;
  float eps;
};
cudaError_t launch_head_norm(const HeadNorm& job, cudaStream_t stream);

// y [rows, width] of gate_up [rows, 2 · width].
cudaError_t launch_swiglu(const float* gate_up, float* y, int64_t rows, int64_t width, cudaStream_t stream);

// y = base + x · weightᵀ + bias; or, with is_gated, silu(gate) · up of x · weightᵀ + bias, whose first half is the gate and whose second is up.
struct Product {
  const void* weight;  // [weight_rows, width], float32 or bfloat16
  bool is_bf16;
  bool is_gated;
  const float* x;      // [rows, width]
  const float* bias;   // [weight_rows], or null
  const float* base;   // as y, or null; null with is_gated
  float* y;            // [rows, weight_rows, or half of it]
  int rows;            // 1 to 8
  int64_t weight_rows;
  int64_t width;
};
cudaError_t launch_product(const Product& job, cudaStream_t stream);

inline constexpr int kAttentionPart = 256;  // step_tiles.h: kPartPositions

// Rows of a serving step, and the pages of the KV cache that they read. The pages lie at multiples of 16 bytes.
struct PagedAttention {
  const float* qkv;  // [N, (heads + 2 · kv_heads) · head_size]
  float* out;        // [N, heads · head_size]
  void* keys;        // [pages, kv_heads, head_size, 16]
  void* values;      // [pages, kv_heads, 16, head_size]
  bool is_bf16;      // the pages; else float32
  int heads;
  int kv_heads;
  int head_size;     // even, at most 256
  float scale;       // of the queries
  const float* rotary;       // [max positions, 2, head_size / 2]: cos, then sin
  const int32_t* positions;  // [N]
  const int32_t* row_pages;  // [N]
  const int32_t* pages;
  const int4* tiles;         // step_tiles.h: Tile
  int num_tiles;
  int queries;               // StepTiles::queries
  int parts;                 // of the row that has most
  int first_row;             // that the tiles have
  int rows;                  // that they have
  float* partial;            // [rows, heads, parts, head_size + 2]; null where parts is 1
};

// The keys, turned by their positions, and the values of the rows 0 … rows − 1 go into their pages.
cudaError_t launch_store(const PagedAttention& job, cudaStream_t stream);

// Of rows whose keys and values are in their pages, as those of all positions before.
cudaError_t launch_attention(const PagedAttention& job, cudaStream_t stream);

}  // namespace penstock::kernels::cuda
