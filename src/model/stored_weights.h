#pragma once
// The weights of a model on disk, parameter by parameter.
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "model/layer.h"
#include "model/transformer_config.h"
#include "weights/model_files.h"

namespace penstock::model {

// Maps a file when the first of its tensors is asked for: a stage reads only its own.
//
// Threads: any.
// Errors:  throws Error naming folder or file, tensor, what was expected and what was found: kNotFound, kDataLoss (a shape, a file cut short),
//          kUnimplemented (a dtype, a tensor of a block that this architecture has no use for).
class StoredWeights {
 public:
  // `model`: a Hugging Face directory, a GGUF file or a folder with one.
  StoredWeights(const std::filesystem::path& model, const TransformerConfig& config);

  // Fills the value of a parameter from its stored parts, converted to float32: exact for F32, F16 and BF16, and for blocks of
  // integers the values that they stand for.
  void load(Parameter& parameter) const;
  // The blocks of integers that the file holds a stored part of a parameter in; nullopt for floats.
  [[nodiscard]] std::optional<formats::GgmlType> block_type(const StoredRows& rows) const { return files_->block_type(stored_name(rows.name)); }
  // Refuses tensors of the blocks that these parameters are in which none of them uses, and blocks that the configuration does not have.
  void require_all_used(std::span<const Parameter> parameters) const;
  // What the input table is stored in: "F32", "F16", "BF16"; "F32" for blocks of integers.
  [[nodiscard]] std::string dtype() const;

 private:
  [[nodiscard]] std::string stored_name(const std::string& name) const;

  const TransformerConfig config_;
  const std::unique_ptr<const weights::ModelFiles> files_;
  const std::string left_out_;  // tensor_prefix() where the files leave it out, else empty
};

}  // namespace penstock::model
