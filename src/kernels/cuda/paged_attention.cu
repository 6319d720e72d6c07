// Attention of a step's rows over the pages of the KV cache. Keys and values are stored first, by one launch; then each block takes some queries that share a key
// head, and a part of the positions that they see (Dao et al. 2023, "Flash-Decoding"); where a row has several parts, a last launch merges them.
#include <math_constants.h>

#include "kernels/cuda/device_code.h"
#include "kernels/cuda/launch.h"

namespace penstock::kernels::cuda {
namespace {

constexpr int kPage = 16;  // positions
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int kWarpPositions = 2 * kWarp;  // each lane scores two
static_assert(kWarps * kWarpPositions == kAttentionPart, "a block scores one part");

__device__ __forceinline__ void round_to(float value, float& to) { to = value; }
__device__ __forceinline__ void round_to(float value, Bfloat16& to) {
  const uint32_t bits = __float_as_uint(value);
  to = static_cast<Bfloat16>(value != value ? (bits >> 16) | 0x40 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// A pair of a head, turned. Written so that every kernel rounds alike.
__device__ __forceinline__ float turned_low(float a, float b, float cosine, float sine) { return fmaf(a, cosine, -__fmul_rn(b, sine)); }
__device__ __forceinline__ float turned_high(float a, float b, float cosine, float sine) { return fmaf(b, cosine, __fmul_rn(a, sine)); }

// A block for each row: its keys, turned, and its values go to their places.
template <typename E>
__global__ void __launch_bounds__(kThreads) store_kernel(const PagedAttention job) {
  const int row = blockIdx.x, position = job.positions[row], size = job.head_size, half = size / 2, lane = position % kPage;
  const float *k = job.qkv + (int64_t{row} * (job.heads + 2 * job.kv_heads) + job.heads) * size, *v = k + job.kv_heads * size;
  const float *cosine = job.rotary + int64_t{position} * size, *sine = cosine + half;
  const int64_t page = int64_t{job.row_pages[row]} * job.kv_heads * kPage * size;
  E *keys = static_cast<E*>(job.keys) + page + lane, *values = static_cast<E*>(job.values) + page + lane * size;
  for (int t = threadIdx.x; t < job.kv_heads * half; t += kThreads) {
    const int g = t / half, i = t % half;
    const float a = k[g * size + i], b = k[g * size + i + half];
    E* to = keys + (int64_t{g} * size + i) * kPage;
    round_to(turned_low(a, b, cosine[i], sine[i]), to[0]);
    round_to(turned_high(a, b, cosine[i], sine[i]), to[half * kPage]);
  }
  for (int t = threadIdx.x; t < job.kv_heads * size; t += kThreads) round_to(v[t], values[int64_t{t / size} * kPage * size + t % size]);
}

// What a block works on: `count` queries from `first` on of the tile's rows times the heads of a key head, and the positions from `start` on.
struct Block {
  int4 tile;  // row, count, position, pages
  int kv_head;
  int group;  // heads of a key head
  int first;
  int count;
  int start;
  int end;    // behind the last position that the tile's last row sees

  __device__ Block(const PagedAttention& job, int queries) : tile(job.tiles[blockIdx.x]), group(job.heads / job.kv_heads) {
    const int blocks = group > queries ? (group + queries - 1) / queries : 1;
    kv_head = blockIdx.y / blocks;
    first = blockIdx.y % blocks * queries;
    count = min(queries, tile.y * group - first);
    start = blockIdx.z * kAttentionPart;
    end = tile.z + tile.y;
  }
  __device__ int row(int m) const { return tile.x + (first + m) / group; }
  __device__ int head(int m) const { return kv_head * group + (first + m) % group; }
  __device__ int positions(int m) const { return m < count ? tile.z + (first + m) / group + 1 : 0; }  // that the query sees
};

// queries [K][M]: turned and scaled; those that are none become 0.
template <int M>
__device__ __forceinline__ void load_queries(const PagedAttention& job, const Block& block, float (*queries)[M]) {
  const int half = job.head_size / 2;
  for (int t = threadIdx.x; t < M * half; t += kThreads) {
    const int m = t / half, i = t % half;
    float low = 0, high = 0;
    if (m < block.count) {
      const float* x = job.qkv + (int64_t{block.row(m)} * (job.heads + 2 * job.kv_heads) + block.head(m)) * job.head_size;
      const float *cosine = job.rotary + int64_t{block.positions(m) - 1} * job.head_size, *sine = cosine + half;
      const float a = x[i] * job.scale, b = x[i + half] * job.scale;
      low = turned_low(a, b, cosine[i], sine[i]);
      high = turned_high(a, b, cosine[i], sine[i]);
    }
    queries[i][m] = low;
    queries[i + half][m] = high;
  }
}

// The page of a position; behind the end some page that is there.
__device__ __forceinline__ int64_t page_of(const PagedAttention& job, const Block& block, int position) {
  return __ldg(job.pages + block.tile.w + min(position, block.end - 1) / kPage);
}

// The scores of M queries at the lane's two positions, of which the second is position + 1.
template <typename E, int M>
__device__ __forceinline__ void score(const PagedAttention& job, const Block& block, int position, const float (*queries)[M], float (&scores)[M][2]) {
  using Pair = typename Words<2 * sizeof(E)>::Type;
  const int size = job.head_size;
  const E* keys = static_cast<const E*>(job.keys) + (page_of(job, block, position) * job.kv_heads + block.kv_head) * kPage * size + position % kPage;
#pragma unroll 8
  for (int i = 0; i < size; ++i) {
    float key[2];
    to_floats(__ldg(reinterpret_cast<const Pair*>(keys + i * kPage)), keys, key);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      scores[m][0] = fmaf(queries[i][m], key[0], scores[m][0]);
      scores[m][1] = fmaf(queries[i][m], key[1], scores[m][1]);
    }
  }
}

__device__ __forceinline__ float warp_top(float value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, step));
  return value;
}

// Lanes of a warp that read one position's values together, V elements each, several times where the head is larger.
template <int Most, int V>
struct Lanes {
  static constexpr int kTogether = Most / V < kWarp ? Most / V : kWarp;
  static constexpr int kTimes = Most / V / kTogether;
  static constexpr int kPositions = kWarp / kTogether;  // at once
};

// mixed += weight · value over the warp's positions; what lies behind the end may be anything and is not read.
template <typename E, int M, int Most, int V>
__device__ __forceinline__ void mix(const PagedAttention& job, const Block& block, int start, const float (*weights)[M], float (&mixed)[M][Lanes<Most, V>::kTimes][V]) {
  using L = Lanes<Most, V>;
  using Word = typename Words<V * sizeof(E)>::Type;
  const int lane = threadIdx.x % kWarp, size = job.head_size, own = lane / L::kTogether, element = lane % L::kTogether * V;
  const int count = min(kWarpPositions, block.end - start);
#pragma unroll 2
  for (int page = 0; page < count; page += kPage) {
    const E* values = static_cast<const E*>(job.values) + (page_of(job, block, start + page) * job.kv_heads + block.kv_head) * kPage * size;
#pragma unroll
    for (int in_page = 0; in_page < kPage; in_page += L::kPositions) {
      const int p = page + in_page + own;
#pragma unroll
      for (int c = 0; c < L::kTimes; ++c) {
        const int e = element + c * L::kTogether * V;
        Word word = {};
        if (p < count && e < size) word = __ldg(reinterpret_cast<const Word*>(values + (in_page + own) * size + e));
        float value[V];
        to_floats(word, values, value);
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
          for (int k = 0; k < V; ++k) mixed[m][c][k] = fmaf(weights[p][m], value[k], mixed[m][c][k]);
        }
      }
    }
  }
#pragma unroll
  for (int step = L::kTogether; step < kWarp; step *= 2) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int c = 0; c < L::kTimes; ++c) {
#pragma unroll
        for (int k = 0; k < V; ++k) mixed[m][c][k] += __shfl_xor_sync(kAllLanes, mixed[m][c][k], step);
      }
    }
  }
}

// Where the part of a row and head lies among the partial results: K sums, the highest score and the sum of the weights.
__device__ __forceinline__ float* partial_of(const PagedAttention& job, int row, int head, int part) {
  return job.partial + ((int64_t{row - job.first_row} * job.heads + head) * job.parts + part) * (job.head_size + 2);
}

// A head has at most Most elements; V of them are read at once.
template <typename E, int M, int Most, int V>
__global__ void __launch_bounds__(kThreads) attention_kernel(const PagedAttention job) {
  using L = Lanes<Most, V>;
  __shared__ __align__(16) float queries[Most][M];
  __shared__ __align__(16) float weights[kWarps][kWarpPositions][M];
  __shared__ float sums[M][Most];
  __shared__ float tops[kWarps][M], totals[kWarps][M];
  const Block block(job, M);
  if (block.start >= block.end) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, start = block.start + warp * kWarpPositions, position = start + 2 * lane;
  load_queries<M>(job, block, queries);
  __syncthreads();

  float scores[M][2] = {};
  if (start < block.end) score<E, M>(job, block, position, queries, scores);
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const int visible = block.positions(m);
    if (position >= visible) scores[m][0] = -CUDART_INF_F;
    if (position + 1 >= visible) scores[m][1] = -CUDART_INF_F;
    const float top = warp_top(fmaxf(scores[m][0], scores[m][1]));
    if (lane == 0) tops[warp][m] = top;
  }
  __syncthreads();
#pragma unroll
  for (int m = 0; m < M; ++m) {
    float top = tops[0][m];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) top = fmaxf(top, tops[w][m]);
    const float low = scores[m][0] == -CUDART_INF_F ? 0.0f : expf(scores[m][0] - top), high = scores[m][1] == -CUDART_INF_F ? 0.0f : expf(scores[m][1] - top);
    weights[warp][2 * lane][m] = low;
    weights[warp][2 * lane + 1][m] = high;
    const float total = warp_sum(low + high);
    if (lane == 0) totals[warp][m] = total;
  }
  __syncwarp();

  float mixed[M][L::kTimes][V] = {};
  mix<E, M, Most, V>(job, block, start, weights[warp], mixed);
  for (int w = 0; w < kWarps; ++w) {  // one after another: the order of the sum is the same always
    if (warp == w && lane < L::kTogether) {
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int c = 0; c < L::kTimes; ++c) {
#pragma unroll
          for (int k = 0; k < V; ++k) {
            float& sum = sums[m][lane * V + c * L::kTogether * V + k];
            sum = w == 0 ? mixed[m][c][k] : sum + mixed[m][c][k];
          }
        }
      }
    }
    __syncthreads();
  }

  for (int t = threadIdx.x; t < block.count * job.head_size; t += kThreads) {
    const int m = t / job.head_size, i = t % job.head_size, visible = block.positions(m);
    if (visible <= block.start) continue;
    float total = 0, top = tops[0][m];
    for (int w = 0; w < kWarps; ++w) total += totals[w][m];
    for (int w = 1; w < kWarps; ++w) top = fmaxf(top, tops[w][m]);
    if (visible <= kAttentionPart) {
      job.out[(int64_t{block.row(m)} * job.heads + block.head(m)) * job.head_size + i] = sums[m][i] / total;
      continue;
    }
    float* partial = partial_of(job, block.row(m), block.head(m), blockIdx.z);
    partial[i] = sums[m][i];
    if (i == 0) {
      partial[job.head_size] = top;
      partial[job.head_size + 1] = total;
    }
  }
}

// A warp for each row and head that has several parts.
__global__ void __launch_bounds__(kThreads) merge_kernel(const PagedAttention job) {
  const int64_t number = (blockIdx.x * int64_t{kThreads} + threadIdx.x) / kWarp;
  if (number >= int64_t{job.rows} * job.heads) return;
  const int row = job.first_row + static_cast<int>(number / job.heads), head = static_cast<int>(number % job.heads);
  const int parts = (job.positions[row] + kAttentionPart) / kAttentionPart, size = job.head_size;
  if (parts == 1) return;
  const float* partial = partial_of(job, row, head, 0);
  float top = -CUDART_INF_F;
  for (int p = 0; p < parts; ++p) top = fmaxf(top, partial[p * (size + 2) + size]);
  for (int i = threadIdx.x % kWarp; i < size; i += kWarp) {
    float sum = 0, total = 0;
    for (int p = 0; p < parts; ++p) {
      const float* one = partial + p * (size + 2);
      const float weight = expf(one[size] - top);
      sum = fmaf(weight, one[i], sum);
      total = fmaf(weight, one[size + 1], total);
    }
    job.out[(int64_t{row} * job.heads + head) * size + i] = sum / total;
  }
}

template <typename E, int M, int Most, int V>
void launch(const PagedAttention& job, cudaStream_t stream) {
  const int group = job.heads / job.kv_heads, blocks = group > M ? (group + M - 1) / M : 1;
  const dim3 grid(static_cast<unsigned>(job.num_tiles), static_cast<unsigned>(job.kv_heads * blocks), static_cast<unsigned>(job.parts));
  attention_kernel<E, M, Most, V><<<grid, kThreads, 0, stream>>>(job);
}

template <typename E, int M>
void launch(const PagedAttention& job, cudaStream_t stream) {
  constexpr int kWhole = 16 / sizeof(E);
  if (job.head_size % kWhole != 0) launch<E, M, 256, 2>(job, stream);
  else if (job.head_size <= 64) launch<E, M, 64, kWhole>(job, stream);
  else if (job.head_size <= 128) launch<E, M, 128, kWhole>(job, stream);
  else launch<E, M, 256, kWhole>(job, stream);
}

template <typename E>
void launch(const PagedAttention& job, cudaStream_t stream) {
  if (job.queries == 4) launch<E, 4>(job, stream);
  else launch<E, 8>(job, stream);
}

}  // namespace

cudaError_t launch_store(const PagedAttention& job, cudaStream_t stream) {
  if (job.is_bf16) store_kernel<Bfloat16><<<static_cast<unsigned>(job.rows), kThreads, 0, stream>>>(job);
  else store_kernel<float><<<static_cast<unsigned>(job.rows), kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

cudaError_t launch_attention(const PagedAttention& job, cudaStream_t stream) {
  if (job.is_bf16) launch<Bfloat16>(job, stream);
  else launch<float>(job, stream);
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess || job.parts == 1) return status;
  const int64_t blocks = (int64_t{job.rows} * job.heads + kWarps - 1) / kWarps;
  merge_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

}  // namespace penstock::kernels::cuda
