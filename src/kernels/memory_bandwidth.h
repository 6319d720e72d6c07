#pragma once
// How fast this machine reads memory, measured on the spot: what decoding is bounded by.
#include <cstdint>

namespace penstock::kernels {

// Bytes per second of reading `bytes` of memory from front to back, as parallel_for() shares it out: the best of several runs within about `seconds`.
// Means something for sizes well beyond the last cache.
[[nodiscard]] double measure_read_bandwidth(int64_t bytes, double seconds);

}  // namespace penstock::kernels
