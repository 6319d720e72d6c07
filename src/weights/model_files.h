#pragma once
// The weights of a model by their Hugging Face names, whatever kind of file they are in.
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "formats/ggml_types.h"
#include "tensor/tensor_fwd.h"

namespace penstock::weights {

// Threads: any.
// Errors:  throws Error kNotFound or kDataLoss naming file and tensor; kUnimplemented for a dtype that we do not read.
class ModelFiles {
 public:
  virtual ~ModelFiles() = default;
  // What messages call the model.
  [[nodiscard]] virtual const std::filesystem::path& path() const = 0;
  [[nodiscard]] virtual std::vector<std::string> names() const = 0;  // sorted
  [[nodiscard]] virtual bool has(const std::string& name) const = 0;
  // In the shape of a Hugging Face checkpoint, on the CPU: a read-only view of the mapped file where it holds floats, else their values as float32.
  [[nodiscard]] virtual Tensor tensor(const std::string& name) const = 0;
  // The blocks of integers that the file holds it in; nullopt for floats, and for a tensor that is not there.
  [[nodiscard]] virtual std::optional<formats::GgmlType> block_type(const std::string& /*name*/) const { return std::nullopt; }
};

// `model`: a Hugging Face directory, a GGUF file or a folder with one (formats::find_gguf).
[[nodiscard]] std::unique_ptr<const ModelFiles> open_model_files(const std::filesystem::path& model);

// The config.json of a Hugging Face directory, or what a GGUF file says in its place.
// Throws Error kNotFound (absent), kInvalidArgument (not a JSON object: file and byte), those of formats::config_of_gguf().
[[nodiscard]] nlohmann::json read_config_json(const std::filesystem::path& model);
// How messages call it: the file config.json, or the GGUF file.
[[nodiscard]] std::string config_name(const std::filesystem::path& model);

}  // namespace penstock::weights
