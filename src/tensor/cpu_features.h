#pragma once
// What this CPU can compute with, asked of the CPU itself. Instructions that the system does not enable count as absent.
namespace penstock::tensor {

struct CpuFeatures {
  bool avx2 = false;         // with FMA
  bool f16c = false;         // IEEE halves to floats and back, eight at once
  bool avx512 = false;       // F, CD, BW, DQ and VL: what "SkylakeX" kernels use
  bool avx512_bf16 = false;
  bool avx512_vnni = false;  // sums of int8 products
  bool amx_bf16 = false;
  bool amx_int8 = false;
};

// All false on other architectures than x86-64.
[[nodiscard]] CpuFeatures cpu_features();

// bf16 matrix products run at least as fast as fp32 ones.
[[nodiscard]] inline bool has_bf16() {
  const CpuFeatures cpu = cpu_features();
  return cpu.avx512_bf16 || cpu.amx_bf16;
}

}  // namespace penstock::tensor
