#pragma once
// Pieces of kernels. For .cu files only.
#include <cuda_runtime.h>

#include <cstdint>

namespace penstock::kernels::cuda {

using Bfloat16 = uint16_t;  // the upper half of a float

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// V elements in memory that are read at once; V · sizeof(E) is at most 16 bytes for weights and pages, and `from` a multiple of it.
template <int Bytes>
struct Words;
template <>
struct Words<2> { using Type = uint16_t; };
template <>
struct Words<4> { using Type = uint32_t; };
template <>
struct Words<8> { using Type = uint2; };
template <>
struct Words<16> { using Type = uint4; };

__device__ __forceinline__ float low_half(uint32_t two) { return __uint_as_float(two << 16); }
__device__ __forceinline__ float high_half(uint32_t two) { return __uint_as_float(two & 0xffff0000u); }

__device__ __forceinline__ void to_floats(uint16_t one, const Bfloat16*, float* to) { to[0] = __uint_as_float(static_cast<uint32_t>(one) << 16); }
__device__ __forceinline__ void to_floats(uint32_t two, const Bfloat16*, float* to) {
  to[0] = low_half(two);
  to[1] = high_half(two);
}
__device__ __forceinline__ void to_floats(uint2 v, const Bfloat16* tag, float* to) {
  to_floats(v.x, tag, to);
  to_floats(v.y, tag, to + 2);
}
__device__ __forceinline__ void to_floats(uint4 v, const Bfloat16* tag, float* to) {
  to_floats(v.x, tag, to);
  to_floats(v.y, tag, to + 2);
  to_floats(v.z, tag, to + 4);
  to_floats(v.w, tag, to + 6);
}
__device__ __forceinline__ void to_floats(uint32_t one, const float*, float* to) { to[0] = __uint_as_float(one); }
__device__ __forceinline__ void to_floats(uint2 v, const float*, float* to) {
  to[0] = __uint_as_float(v.x);
  to[1] = __uint_as_float(v.y);
}
__device__ __forceinline__ void to_floats(uint4 v, const float*, float* to) {
  to[0] = __uint_as_float(v.x);
  to[1] = __uint_as_float(v.y);
  to[2] = __uint_as_float(v.z);
  to[3] = __uint_as_float(v.w);
}

// Activations: V floats, as many 16-byte reads as it takes.
template <int V>
__device__ __forceinline__ void read(const float* __restrict__ from, float (&to)[V]) {
  constexpr int kAtOnce = V < 4 ? V : 4;
  using Word = typename Words<4 * kAtOnce>::Type;
#pragma unroll
  for (int i = 0; i < V; i += kAtOnce) to_floats(__ldg(reinterpret_cast<const Word*>(from + i)), from, to + i);
}

template <int V>
__device__ __forceinline__ void write(const float (&from)[V], float* to) {
  if constexpr (V == 4) {
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = from[i];
  }
}

// What is read once and by nobody else soon: it leaves the first-level cache to what is read again.
__device__ __forceinline__ uint4 read_once(const uint4* from) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(from));
  return v;
}
template <typename Word>
__device__ __forceinline__ Word read_once(const Word* from) {
  return __ldg(from);
}

// All lanes get the sum; its order is the same always.
__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

// silu(gate) · up.
__device__ __forceinline__ float gated(float gate, float up) { return gate / (1.0f + expf(-gate)) * up; }

inline bool is_aligned(const void* p, size_t bytes) { return reinterpret_cast<uintptr_t>(p) % bytes == 0; }

}  // namespace penstock::kernels::cuda
