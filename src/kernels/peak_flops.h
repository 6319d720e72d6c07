#pragma once
// What this machine can compute, measured on the spot: the denominator of MFU.

namespace penstock::kernels {

// float32 operations per second of a 1024³ matrix product on the calling process's OpenMP threads: the best of several runs within
// about `seconds`.
[[nodiscard]] double measure_peak_flops(double seconds);

}  // namespace penstock::kernels
