#pragma once
// What this machine can compute, measured on the spot: the denominator of MFU.

#include <c10/core/Device.h>

#include "kernels/compute.h"

namespace penstock::kernels {

// Operations per second of a matrix product in this precision: 1024³ on the calling process's OpenMP threads, the best of several runs within about
// `seconds`; on a GPU 8192³, the mean of those runs. float16 on a CPU, which only imitates it: that of float32.
[[nodiscard]] double measure_peak_flops(Compute compute, double seconds, at::Device device = at::kCPU);

}  // namespace penstock::kernels
