#pragma once
// Intel's matrix registers (AMX). Private to src/kernels, but for tests; torch-free.
//
// A kernel sets their shapes before it uses them and releases them after; both belong to its thread. gcc 12 does not know what memory a register is loaded from:
// whoever has just written there says so by kernels::written().
#include <cstdint>

namespace penstock::kernels {

// The processor has AMX for int8 and bfloat16 with the AVX-512 instructions that came with it, and the system lets this process use its registers. Asked once.
[[nodiscard]] bool has_amx();

// Of each register how many lines it has, and how long they are: as ldtilecfg reads it (Intel Software Developer's Manual, volume 1, chapter 18).
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t line_bytes[16] = {};
  uint8_t lines[16] = {};
};
static_assert(sizeof(TileShapes) == 64);

inline void written() { __asm__ volatile("" ::: "memory"); }

}  // namespace penstock::kernels
