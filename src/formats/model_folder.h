#pragma once
// What a Hugging Face directory holds, from the headers of its files: no weight is read.
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "formats/safetensors_header.h"

namespace penstock::formats {

// The tensors of all *.safetensors files of the folder, by name. kNotFound when the folder or such files are missing, kDataLoss for a
// file that contradicts itself or a tensor that two files have.
[[nodiscard]] Result<std::vector<TensorEntry>> list_model_tensors(const std::filesystem::path& folder);

}  // namespace penstock::formats
