#include "handler/torch_failure.h"

#include <algorithm>
#include <array>

namespace penstock::handler {
namespace {

constexpr std::array<std::string_view, 5> kMemory = {"out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "STATUS_ALLOC_FAILED"};
constexpr std::array<std::string_view, 6> kDevice = {"CUDA error", "CUDA driver error", "CUBLAS_STATUS_", "CUDNN_STATUS_", "cuDNN error", "NCCL error"};

}  // namespace

Code code_of_torch_failure(std::string_view text) {
  const auto occurs = [text](std::string_view words) { return text.find(words) != std::string_view::npos; };
  if (std::ranges::any_of(kMemory, occurs)) return Code::kResourceExhausted;
  return std::ranges::any_of(kDevice, occurs) ? Code::kInternal : Code::kInvalidArgument;
}

}  // namespace penstock::handler
