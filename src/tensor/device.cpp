#include "tensor/device.h"

#include <c10/core/DeviceGuard.h>
#include <dlfcn.h>
#include <torch/cuda.h>

#include <charconv>

#include "tensor/cpu_features.h"

namespace penstock::tensor {
namespace {

constexpr const char* kCudaName = "cuda";

Error no_gpu(const std::string& name, int found) {
  return error(Code::kFailedPrecondition,
               "device '{}': found {} GPU(s). Is LibTorch built with CUDA (Debian's is not: set CMAKE_PREFIX_PATH to one from pytorch.org), does nvidia-smi "
               "list a GPU, and does CUDA_VISIBLE_DEVICES name it? 'cpu' always works",
               name, found);
}

std::optional<int> number_of(const std::string& text) {
  int number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (failure != std::errc() || end != text.data() + text.size() || number < 0) return std::nullopt;
  return number;
}

Result<at::Device> gpu(const std::string& name, int number) {
  const int found = num_gpus();
  if (number >= found) return no_gpu(name, found);
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(number));
}

}  // namespace

int num_gpus() {
  static const int count = static_cast<int>(torch::cuda::device_count());
  return count;
}

Result<at::Device> find_device(const std::string& name, int local_rank) {
  if (name == "cpu" || (name == "auto" && num_gpus() == 0)) return at::Device(at::kCPU);
  if (name == kCudaName || name == "auto") return gpu(name, num_gpus() == 0 ? 0 : local_rank % num_gpus());
  const std::string prefix = std::string(kCudaName) + ":";
  if (name.starts_with(prefix)) {
    if (const auto number = number_of(name.substr(prefix.size()))) return gpu(name, *number);
  }
  return error(Code::kInvalidArgument, "device '{}': expected 'auto', 'cpu', 'cuda' or 'cuda:N'", name);
}

void synchronize(const at::Device& device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

bool computes_in_bf16(const at::Device& device) {
  if (!device.is_cuda()) return has_bf16();
  constexpr int kComputeCapabilityMajor = 75;  // cudaDevAttrComputeCapabilityMajor
  using GetAttribute = int(int* value, int attribute, int device);
  auto* get_attribute = reinterpret_cast<GetAttribute*>(::dlsym(RTLD_DEFAULT, "cudaDeviceGetAttribute"));
  int major = 0;
  return get_attribute != nullptr && get_attribute(&major, kComputeCapabilityMajor, device.index()) == 0 && major >= 8;
}

std::optional<DeviceMemory> device_memory(const at::Device& device) {
  if (!device.is_cuda()) return std::nullopt;
  // Of the runtime that LibTorch has loaded: the same call in every version of it.
  using MemGetInfo = int(size_t * free, size_t * total);
  auto* mem_get_info = reinterpret_cast<MemGetInfo*>(::dlsym(RTLD_DEFAULT, "cudaMemGetInfo"));
  if (mem_get_info == nullptr) return std::nullopt;
  const c10::DeviceGuard guard(device);
  size_t free = 0, total = 0;
  if (mem_get_info(&free, &total) != 0) return std::nullopt;
  return DeviceMemory{static_cast<int64_t>(free), static_cast<int64_t>(total)};
}

}  // namespace penstock::tensor
