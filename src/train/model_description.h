#pragma once
// What stands beside the weights of a model directory: config.json, the tokenizer's files, how to generate.
#include <filesystem>
#include <map>
#include <string>

#include "model/transformer_config.h"
#include "tensor/dtype.h"

namespace penstock::train {

// Kept in memory: the directory that the files come from may have changed or gone when they are written.
//
// Threads: const after construction.
class ModelDescription {
 public:
  // Of a new model with the tokenizer whose files are in `tokenizer_folder`; empty = bytes. Throws Error kDataLoss.
  [[nodiscard]] static ModelDescription of_new(const model::TransformerConfig& config, tensor::ScalarType dtype,
                                               const std::filesystem::path& tokenizer_folder = {});
  // Of the model in `folder`: its files byte for byte, but for the dtype in config.json where that is another.
  // Throws Error kNotFound (no config.json), kDataLoss.
  [[nodiscard]] static ModelDescription copied(const std::filesystem::path& folder, tensor::ScalarType dtype);

  // Throws Error kDataLoss.
  void write(const std::filesystem::path& folder) const;

 private:
  void copy_files(const std::filesystem::path& folder);

  std::map<std::string, std::string> files_;  // by name
  bool byte_tokenizer_ = false;
};

}  // namespace penstock::train
