#include "handler/torch_failure.h"

#include <gtest/gtest.h>

namespace penstock::handler {
namespace {

TEST(TorchFailure, MemoryIsToldFromBrokenDevicesAndBothFromBadInputs) {
  for (const char* text : {"CUDA out of memory. Tried to allocate 20.00 GiB", "CUDA error: out of memory", "std::bad_alloc",
                           "[enforce fail at alloc_cpu.cpp:83] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes",
                           "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"}) {
    EXPECT_EQ(code_of_torch_failure(text), Code::kResourceExhausted) << text;
  }
  for (const char* text : {"CUDA error: device-side assert triggered", "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
                           "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", "CUDA driver error: unknown error"}) {
    EXPECT_EQ(code_of_torch_failure(text), Code::kInternal) << text;
  }
  EXPECT_EQ(code_of_torch_failure("mat1 and mat2 shapes cannot be multiplied (1x3 and 2x1)"), Code::kInvalidArgument);
}

}  // namespace
}  // namespace penstock::handler
