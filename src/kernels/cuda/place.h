#pragma once
// Where a kernel is launched, and how its failure is told. Private to src/kernels/cuda.
#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "base/error.h"

namespace penstock::kernels::cuda {

// While it lives, x's GPU is the current one.
struct Place {
  explicit Place(const at::Tensor& x) : guard(x.device()), stream(c10::cuda::getCurrentCUDAStream(x.device().index())) {}
  const c10::cuda::CUDAGuard guard;
  const c10::cuda::CUDAStream stream;
};

// Throws Error kInternal unless the launch succeeded. x: the input, for the message.
inline void check(cudaError_t status, const char* kernel, const at::Tensor& x) {
  if (status == cudaSuccess) return;
  throw error(Code::kInternal, "CUDA kernel {} on {} with {} elements: {} ({}); an earlier operation may have failed: CUDA_LAUNCH_BLOCKING=1 tells which", kernel, x.device().str(),
              x.numel(), cudaGetErrorString(status), cudaGetErrorName(status));
}

}  // namespace penstock::kernels::cuda
