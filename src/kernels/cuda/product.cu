// Products of a few rows of activations with a weight: the time is that of reading the weight once.
#include <algorithm>

#include "kernels/cuda/device_code.h"
#include "kernels/cuda/launch.h"

namespace penstock::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// R outputs of N rows by `split` warps of a block, each of which takes every split-th piece of the width; their sums meet in shared memory. How the width is
// cut depends on the weight's sizes alone, so an output does not depend on the rows beside its own.
template <typename E, int V, int N, int R>
__global__ void __launch_bounds__(kThreads) product_kernel(const Product job, int split) {
  using Word = typename Words<V * sizeof(E)>::Type;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, part = warp % split;
  const int64_t width = job.width, first = (blockIdx.x * int64_t{kWarps} / split + warp / split) * R;
  const E* weight[R];
#pragma unroll
  for (int r = 0; r < R; ++r) weight[r] = static_cast<const E*>(job.weight) + min(first + r, job.outputs - 1) * width;
  const float* x[N];
#pragma unroll
  for (int n = 0; n < N; ++n) x[n] = job.x + min(n, job.rows - 1) * width;

  float sum[N][R] = {};
#pragma unroll 2
  for (int64_t i = int64_t{part * kWarp + lane} * V; i < width; i += int64_t{split} * kWarp * V) {
    Word words[R];
#pragma unroll
    for (int r = 0; r < R; ++r) words[r] = read_once(reinterpret_cast<const Word*>(weight[r] + i));
    float values[R][V];
#pragma unroll
    for (int r = 0; r < R; ++r) to_floats(words[r], weight[r], values[r]);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      float row[V];
      read(x[n] + i, row);
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int k = 0; k < V; ++k) sum[n][r] = fmaf(row[k], values[r][k], sum[n][r]);
      }
    }
  }

  __shared__ float sums[kWarps][N * R];
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const float total = warp_sum(sum[n][r]);
      if (lane == 0) sums[warp][n * R + r] = total;
    }
  }
  __syncthreads();
  for (int t = threadIdx.x; t < kWarps / split * N * R; t += kThreads) {
    const int group = t / (N * R), n = t % (N * R) / R, r = t % R;
    const int64_t output = (blockIdx.x * int64_t{kWarps} / split + group) * R + r;
    if (n >= job.rows || output >= job.outputs) continue;
    float total = job.bias == nullptr ? 0.0f : job.bias[output];
    for (int w = 0; w < split; ++w) total += sums[group * split + w][n * R + r];
    job.y[n * job.outputs + output] = total;
  }
}

// So many warps fill a large GPU with reads under way; smaller weights are cut along their width until there are as many.
constexpr int64_t kWantedWarps = 4096;

template <typename E, int V, int N, int R>
void launch(const Product& job, cudaStream_t stream) {
  const int64_t groups = (job.outputs + R - 1) / R, pieces = (job.width + kWarp * V - 1) / (kWarp * V);
  // By fours of outputs: how many of them a warp takes changes with the rows, and the cut must not.
  const int64_t fours = (job.outputs + 3) / 4;
  int split = 1;
  while (split < kWarps && 2 * split <= pieces && split * fours < kWantedWarps) split *= 2;
  const int64_t groups_per_block = kWarps / split;
  product_kernel<E, V, N, R><<<static_cast<unsigned>((groups + groups_per_block - 1) / groups_per_block), kThreads, 0, stream>>>(job, split);
}

template <typename E, int V, int N>
void launch(const Product& job, cudaStream_t stream) {
  constexpr int64_t kManyOutputs = 8192;  // enough warps although each takes four
  if (job.outputs >= kManyOutputs) launch<E, V, N, 4>(job, stream);
  else launch<E, V, N, 2>(job, stream);
}

template <typename E, int V>
void launch(const Product& job, cudaStream_t stream) {
  if (job.rows == 1) launch<E, V, 1>(job, stream);
  else if (job.rows == 2) launch<E, V, 2>(job, stream);
  else if (job.rows <= 4) launch<E, V, 4>(job, stream);
  else launch<E, V, 8>(job, stream);
}

// 16 bytes of the weight at a time, or one element where they do not lie so.
template <typename E>
void launch(const Product& job, cudaStream_t stream) {
  constexpr int kWhole = 16 / sizeof(E);
  if (job.width % kWhole == 0 && is_aligned(job.weight, 16) && is_aligned(job.x, 16)) launch<E, kWhole>(job, stream);
  else launch<E, 1>(job, stream);
}

}  // namespace

cudaError_t launch_product(const Product& job, cudaStream_t stream) {
  if (job.is_bf16) launch<Bfloat16>(job, stream);
  else launch<float>(job, stream);
  return cudaGetLastError();
}

}  // namespace penstock::kernels::cuda
