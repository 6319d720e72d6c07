#pragma once
// A torch.jit file as a model of tensors.
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "handler/tensor_handler.h"

namespace penstock {

// Reads the file and puts the model onto the first visible GPU, or the CPU. Its method forward() takes the inputs in order: a tensor each, or a
// list of texts for BYTES. It answers a tensor, a list of texts, or a tuple, list or dictionary of these.
// Inputs that forward() fails on are kInvalidArgument, with its reason and the inputs' types and shapes.
// Errors: kDataLoss: not a torch.jit file; kInvalidArgument: it has no forward().
[[nodiscard]] Result<std::unique_ptr<handler::TensorModel>> load_jit_model(const std::filesystem::path& file);

}  // namespace penstock
