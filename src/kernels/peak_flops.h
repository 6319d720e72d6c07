#pragma once
// What this machine can compute, measured on the spot: the denominator of MFU.

#include "kernels/compute.h"

namespace penstock::kernels {

// Operations per second of a 1024³ matrix product in this precision on the calling process's OpenMP threads: the best of several runs
// within about `seconds`.
[[nodiscard]] double measure_peak_flops(Compute compute, double seconds);

}  // namespace penstock::kernels
