// Norms and the gated activation: each reads its input once from memory, and writes its output once.
#include <algorithm>

#include "kernels/cuda/device_code.h"
#include "kernels/cuda/launch.h"

namespace penstock::kernels::cuda {
namespace {

constexpr int kMostThreads = 512;
constexpr int64_t kMostGridRows = 65535;  // blocks in the second dimension of a grid

// A block for each row. The row is read twice, the second time from the cache.
template <int V>
__global__ void __launch_bounds__(kMostThreads) rms_norm_kernel(const float* __restrict__ x, const float* __restrict__ weight, float* __restrict__ y, int64_t width, float eps) {
  __shared__ float sums[kMostThreads / kWarp];
  const float* row = x + blockIdx.x * width;
  float* out = y + blockIdx.x * width;
  float sum = 0;
  for (int64_t i = int64_t{threadIdx.x} * V; i < width; i += int64_t{blockDim.x} * V) {
    float v[V];
    read(row + i, v);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += v[k] * v[k];
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
  __syncthreads();
  sum = 0;
  for (unsigned w = 0; w < blockDim.x / kWarp; ++w) sum += sums[w];
  const float scale = 1.0f / sqrtf(sum / static_cast<float>(width) + eps);
  for (int64_t i = int64_t{threadIdx.x} * V; i < width; i += int64_t{blockDim.x} * V) {
    float v[V], w[V];
    read(row + i, v);
    read(weight + i, w);
#pragma unroll
    for (int k = 0; k < V; ++k) v[k] = v[k] * scale * w[k];
    write(v, out + i);
  }
}

// A warp for each head of each row; value heads are copied.
template <int V>
__global__ void head_norm_kernel(const HeadNorm job) {
  const int lane = threadIdx.x % kWarp, all_heads = job.heads + 2 * job.kv_heads;
  const int64_t number = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / kWarp;
  if (number >= job.rows * all_heads) return;
  const auto head = static_cast<int>(number % all_heads);
  const float* in = job.qkv + number * job.head_size;
  float* out = job.out + number * job.head_size;
  const bool is_value = head >= job.heads + job.kv_heads;
  const float* weight = head < job.heads ? job.q_weight : job.k_weight;
  float sum = 0, v[V], w[V];
  for (int i = lane * V; i < job.head_size; i += kWarp * V) {
    read(in + i, v);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += v[k] * v[k];
  }
  const float scale = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(job.head_size) + job.eps);
  for (int i = lane * V; i < job.head_size; i += kWarp * V) {
    read(in + i, v);
    if (!is_value) {
      read(weight + i, w);
#pragma unroll
      for (int k = 0; k < V; ++k) v[k] = v[k] * scale * w[k];
    }
    write(v, out + i);
  }
}

template <int V>
__global__ void swiglu_kernel(const float* __restrict__ gate_up, float* __restrict__ y, int64_t rows, int64_t width) {
  const int64_t i = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) * V;
  if (i >= width) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    float gate[V], up[V];
    read(gate_up + r * 2 * width + i, gate);
    read(gate_up + r * 2 * width + width + i, up);
#pragma unroll
    for (int k = 0; k < V; ++k) gate[k] = gated(gate[k], up[k]);
    write(gate, y + r * width + i);
  }
}

int64_t parts(int64_t count, int64_t of) { return (count + of - 1) / of; }

}  // namespace

cudaError_t launch_rms_norm(const float* x, const float* weight, float* y, int64_t rows, int64_t width, float eps, cudaStream_t stream) {
  const bool by_four = width % 4 == 0 && is_aligned(x, 16) && is_aligned(weight, 16) && is_aligned(y, 16);
  const int64_t pieces = by_four ? width / 4 : width;
  const auto threads = static_cast<unsigned>(std::min<int64_t>(kMostThreads, parts(pieces, kWarp) * kWarp));
  if (by_four) rms_norm_kernel<4><<<static_cast<unsigned>(rows), threads, 0, stream>>>(x, weight, y, width, eps);
  else rms_norm_kernel<1><<<static_cast<unsigned>(rows), threads, 0, stream>>>(x, weight, y, width, eps);
  return cudaGetLastError();
}

cudaError_t launch_head_norm(const HeadNorm& job, cudaStream_t stream) {
  constexpr int kThreads = 128;
  const bool by_four = job.head_size % 4 == 0 && is_aligned(job.qkv, 16) && is_aligned(job.q_weight, 16) && is_aligned(job.k_weight, 16) && is_aligned(job.out, 16);
  const auto blocks = static_cast<unsigned>(parts(job.rows * (job.heads + 2 * job.kv_heads), kThreads / kWarp));
  if (by_four) head_norm_kernel<4><<<blocks, kThreads, 0, stream>>>(job);
  else head_norm_kernel<1><<<blocks, kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

cudaError_t launch_swiglu(const float* gate_up, float* y, int64_t rows, int64_t width, cudaStream_t stream) {
  constexpr int kThreads = 128;
  const bool by_four = width % 4 == 0 && is_aligned(gate_up, 16) && is_aligned(y, 16);
  const dim3 blocks(static_cast<unsigned>(parts(by_four ? width / 4 : width, kThreads)), static_cast<unsigned>(std::min(rows, kMostGridRows)));
  if (by_four) swiglu_kernel<4><<<blocks, kThreads, 0, stream>>>(gate_up, y, rows, width);
  else swiglu_kernel<1><<<blocks, kThreads, 0, stream>>>(gate_up, y, rows, width);
  return cudaGetLastError();
}

}  // namespace penstock::kernels::cuda
