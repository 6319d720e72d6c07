#include "tensor/cpu_features.h"

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace penstock::tensor {

#if defined(__x86_64__)
namespace {

bool bit(uint64_t value, int index) { return ((value >> index) & 1U) != 0; }

// Which register files the system saves on a context switch.
uint64_t enabled_state() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

}  // namespace

// Leaves, registers and bits: Intel Software Developer's Manual, volume 2, CPUID; XCR0: volume 1, chapter 13.
CpuFeatures cpu_features() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  CpuFeatures cpu;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || !bit(ecx, 27)) return cpu;  // 27: OSXSAVE, xgetbv may be used
  const bool fma = bit(ecx, 12);
  const bool f16c = bit(ecx, 29);
  const uint64_t state = enabled_state();
  const bool ymm = bit(state, 1) && bit(state, 2);
  const bool zmm = ymm && bit(state, 5) && bit(state, 6) && bit(state, 7);
  const bool tiles = bit(state, 17) && bit(state, 18);

  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return cpu;
  cpu.avx2 = ymm && fma && bit(ebx, 5);
  cpu.f16c = ymm && f16c;
  cpu.avx512 = zmm && bit(ebx, 16) && bit(ebx, 17) && bit(ebx, 28) && bit(ebx, 30) && bit(ebx, 31);  // F, DQ, CD, BW, VL
  cpu.avx512_vnni = cpu.avx512 && bit(ecx, 11);
  cpu.amx_bf16 = tiles && bit(edx, 22) && bit(edx, 24);  // AMX-BF16, AMX-TILE
  cpu.amx_int8 = tiles && bit(edx, 25) && bit(edx, 24);
  if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) cpu.avx512_bf16 = cpu.avx512 && bit(eax, 5);
  return cpu;
}
#else
CpuFeatures cpu_features() { return {}; }
#endif

}  // namespace penstock::tensor
