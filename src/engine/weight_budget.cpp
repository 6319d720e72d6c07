#include "engine/weight_budget.h"

#include "kernels/quantized_blocks.h"

namespace penstock::engine {
namespace {

int64_t in_blocks(int64_t num_weights, kernels::BlockFormat format) {
  return num_weights / kernels::kBlockValues * kernels::block_bytes(format);
}

}  // namespace

int64_t least_weight_bytes(int64_t num_weights, model::Quantization quantization, kernels::Compute compute) {
  switch (quantization) {
    case model::Quantization::kInt8: return in_blocks(num_weights, kernels::BlockFormat::kInt8);
    case model::Quantization::kInt4: return in_blocks(num_weights, kernels::BlockFormat::kInt4Min);
    case model::Quantization::kAsStored: return in_blocks(num_weights, kernels::BlockFormat::kInt4);  // the smallest that a file may have
    case model::Quantization::kNone: break;
  }
  return num_weights * (compute == kernels::Compute::kBf16 ? 2 : 4);
}

Error too_little_weight_memory(int64_t needed, int64_t available, const at::Device& device) {
  if (device.is_cpu()) {
    return error(Code::kResourceExhausted,
                 "the weights of this rank need {} MiB of memory, and {} MiB are available; free memory, divide the model among more ranks (parallelLevel), on several "
                 "machines if need be, or set handler.quantization",
                 needed >> 20, available >> 20);
  }
  return error(Code::kResourceExhausted,
               "the weights of this rank need {} MiB of the memory of {}, and {} MiB are available there; free memory, divide the model among more GPUs (parallelLevel), "
               "set 'handler.dtype: bf16', or serve it on the CPU (handler.device: cpu)",
               needed >> 20, device.str(), available >> 20);
}

std::optional<Error> check_weight_memory(int64_t needed, std::optional<int64_t> available, const at::Device& device) {
  if (!available || needed <= *available) return std::nullopt;
  return too_little_weight_memory(needed, *available, device);
}

}  // namespace penstock::engine
