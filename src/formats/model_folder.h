#pragma once
// What a Hugging Face directory holds, from the headers of its files: no weight is read.
#include <filesystem>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "formats/safetensors_header.h"

namespace penstock::formats {

// The tensors of all *.safetensors files of the folder, by name. kNotFound when the folder or such files are missing, kDataLoss for a
// file that contradicts itself or a tensor that two files have.
[[nodiscard]] Result<std::vector<TensorEntry>> list_model_tensors(const std::filesystem::path& folder);

// The same with the files mapped, to read the tensors' bytes.
class MappedModel {
 public:
  // Throws Error as list_model_tensors().
  explicit MappedModel(const std::filesystem::path& folder);

  [[nodiscard]] const std::vector<TensorEntry>& tensors() const { return tensors_; }  // by name
  [[nodiscard]] std::span<const std::byte> bytes(size_t tensor) const;

 private:
  std::vector<MappedFile> files_;
  std::vector<TensorEntry> tensors_;
  std::vector<size_t> file_of_;  // by tensor
};

}  // namespace penstock::formats
