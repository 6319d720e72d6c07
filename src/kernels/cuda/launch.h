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

struct Product {
  const void* weight;  // [outputs, width], float32 or bfloat16
  bool is_bf16;
  const float* x;      // [rows, width]
  const float* bias;   // [outputs], or null
  float* y;            // [rows, outputs]
  int rows;            // 1 to 8
  int64_t outputs;
  int64_t width;
};
cudaError_t launch_product(const Product& job, cudaStream_t stream);

}  // namespace penstock::kernels::cuda
