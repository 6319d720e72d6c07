#pragma once
// Models from Hugging Face directories to GGUF files and back, tensor by tensor.
#include <filesystem>
#include <functional>
#include <optional>

#include "formats/ggml_types.h"

namespace penstock {

struct ConversionOptions {
  std::filesystem::path input, output;
  // What matrices become; absent: they stay as they are (from GGUF, blocks of integers become F16, which Hugging Face's files can hold).
  std::optional<formats::GgmlType> type;
  bool overwrite = false;
};

// Reports the share that is done and the tensor at hand.
using ConversionProgress = std::function<void(double share, const std::string& tensor)>;

// The output is written beside its place and moved there when it is complete and on the disk: a failure leaves what was there.
//
// Hugging Face to GGUF: norms, biases and GPT-2's positions become F32, as llama.cpp wants them; rows that no block of 32 values fits stay F16, and
// with Q4_0 the token tables are Q8_0. GGUF to Hugging Face: such F32 tensors take the type of the token table where it holds their values exactly, so
// that the way there and back changes no bit.
//
// Throws Error: kInvalidArgument (both are of one kind; the output is no model and may not be replaced), kAlreadyExists (without `overwrite`),
// kUnimplemented naming what has no place in the other format, kDataLoss.
void convert_model(const ConversionOptions& options, const ConversionProgress& progress);

}  // namespace penstock
