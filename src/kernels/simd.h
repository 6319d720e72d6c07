#pragma once
// What the element-wise kernels share: code made once per instruction set, and an exp() that compilers can vectorize.
//
// A function marked PENSTOCK_CLONES is compiled for AVX-512, AVX2 and the baseline, and the loader picks one. Helpers that it
// calls are PENSTOCK_INLINE so that they are compiled with it. The names are instruction sets on purpose: gcc asks for "arch=" names by CPU
// model, and a model younger than the compiler would get the baseline.
#include <bit>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define PENSTOCK_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define PENSTOCK_CLONES
#endif
#define PENSTOCK_INLINE inline __attribute__((always_inline))

namespace penstock::kernels {

// e^x with a relative error below 2e-7 on [-87, 88]; below, 0 or close to it; above, large and finite.
// Cody-Waite reduction to |r| <= ln2/2 and a degree-6 polynomial (the coefficients are those of Cephes' expf).
PENSTOCK_INLINE float exp_fast(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest integer
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
  return p * std::bit_cast<float>(exponent);
}

// 1 / x for x in [1e-37, 1e37], relative error below 2e-7: three Newton steps from a guess read off the exponent. A vector division takes
// about ten times as long on current CPUs.
PENSTOCK_INLINE float reciprocal_fast(float x) {
  float y = std::bit_cast<float>(0x7EF311C7 - std::bit_cast<int32_t>(x));
  y *= 2.0f - x * y;
  y *= 2.0f - x * y;
  y *= 2.0f - x * y;
  return y;
}

PENSTOCK_INLINE float sigmoid_fast(float x) { return reciprocal_fast(1.0f + exp_fast(-x < 85.0f ? -x : 85.0f)); }

}  // namespace penstock::kernels
