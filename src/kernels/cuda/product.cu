// Products of a few rows of activations with a weight: the time is that of reading the weight once.
#include <algorithm>

#include "kernels/cuda/device_code.h"
#include "kernels/cuda/launch.h"

namespace penstock::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;

// R rows of the weight times N rows of activations, by `split` warps of a block, each of which takes every split-th piece of the width; their sums meet in shared
// memory. How the width is cut depends on the weight's sizes alone, so an output does not depend on the rows beside its own. With Gated, every second row is
// one of the weight's second half, and two rows make an output.
template <typename E, int V, int N, int R, bool Gated>
__global__ void __launch_bounds__(kThreads) product_kernel(const Product job, int split) {
  using Word = typename Words<V * sizeof(E)>::Type;
  constexpr int kOutputs = Gated ? R / 2 : R;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, part = warp % split;
  const int64_t width = job.width, outputs = Gated ? job.weight_rows / 2 : job.weight_rows, first_group = blockIdx.x * int64_t{kWarps} / split;
  const E* weight[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t output = min((first_group + warp / split) * kOutputs + (Gated ? r / 2 : r), outputs - 1);
    weight[r] = static_cast<const E*>(job.weight) + (Gated && r % 2 == 1 ? outputs + output : output) * width;
  }
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
  for (int t = threadIdx.x; t < kWarps / split * N * kOutputs; t += kThreads) {
    const int group = t / (N * kOutputs), n = t % (N * kOutputs) / kOutputs, o = t % kOutputs;
    const int64_t output = (first_group + group) * kOutputs + o;
    if (n >= job.rows || output >= outputs) continue;
    const auto total = [&](int r, int64_t weight_row) {
      float value = job.bias == nullptr ? 0.0f : job.bias[weight_row];
      for (int w = 0; w < split; ++w) value += sums[group * split + w][n * R + r];
      return value;
    };
    float& y = job.y[n * outputs + output];
    if constexpr (Gated) {
      y = gated(total(2 * o, output), total(2 * o + 1, outputs + output));
    } else {
      y = job.base == nullptr ? total(o, output) : job.base[n * outputs + output] + total(o, output);
    }
  }
}

// So many warps fill a large GPU with reads under way; smaller weights are cut along their width until there are as many.
constexpr int64_t kWantedWarps = 4096;

template <typename E, int V, int N, int R, bool Gated>
void launch(const Product& job, cudaStream_t stream) {
  const int64_t groups = (job.weight_rows + R - 1) / R, pieces = (job.width + kWarp * V - 1) / (kWarp * V);
  // By fours of the weight's rows: how many of them a warp takes changes with their number, and the cut must not.
  const int64_t fours = (job.weight_rows + 3) / 4;
  int split = 1;
  while (split < kWarps && 2 * split <= pieces && split * fours < kWantedWarps) split *= 2;
  const int64_t groups_per_block = kWarps / split;
  product_kernel<E, V, N, R, Gated><<<static_cast<unsigned>((groups + groups_per_block - 1) / groups_per_block), kThreads, 0, stream>>>(job, split);
}

template <typename E, int V, int N>
void launch(const Product& job, cudaStream_t stream) {
  constexpr int64_t kManyRows = 8192;  // enough warps although each takes four
  if (job.is_gated && job.weight_rows >= kManyRows) launch<E, V, N, 4, true>(job, stream);
  else if (job.is_gated) launch<E, V, N, 2, true>(job, stream);
  else if (job.weight_rows >= kManyRows) launch<E, V, N, 4, false>(job, stream);
  else launch<E, V, N, 2, false>(job, stream);
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
