#pragma once
// Reads and writes safetensors files: tensors by name, straight from the mapped file.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tensor/tensor_fwd.h"

namespace penstock::weights {

using NamedTensor = std::pair<std::string, Tensor>;  // incomplete: include <ATen/core/Tensor.h> to hold one

// One mapped file. Opening reads the header only; a tensor's pages are read when its elements are.
//
// Threads: const after open; any thread.
// Errors:  kNotFound or kDataLoss naming the file, the tensor, what was expected and found.
class SafetensorsFile {
 public:
  // Throws Error.
  [[nodiscard]] static SafetensorsFile open(const std::filesystem::path& path);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  [[nodiscard]] const std::vector<std::string>& names() const;  // by position in the file
  [[nodiscard]] bool has(const std::string& name) const;
  [[nodiscard]] uint64_t bytes(const std::string& name) const;  // throws as tensor() does
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const;

  // A view of the mapped bytes, on the CPU; a copy when the file has the tensor at an odd address. The map lives as long as any
  // such view. Read-only: writing to a view ends the process (clone() first).
  // Throws Error kNotFound (no such tensor) or kUnimplemented (a dtype other than F32, F16, BF16, F64, I64, I32, U8).
  [[nodiscard]] Tensor tensor(const std::string& name) const;

 private:
  struct Impl;
  explicit SafetensorsFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Writes the tensors in the order given (any device or stride; names unique) through a temporary file that is fsynced and renamed:
// a reader sees the old file or the whole new one. Holds one tensor's copy at a time. Same input, same bytes.
// Throws Error kDataLoss (disk) or kUnimplemented (dtype).
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace penstock::weights
