#pragma once
// The weights of a GGUF file.
#include <filesystem>
#include <string>
#include <vector>

#include "formats/gguf_model.h"
#include "weights/model_files.h"

namespace penstock::weights {

class GgufWeights final : public ModelFiles {
 public:
  // Throws Error: those of formats::GgufModel::open().
  explicit GgufWeights(const std::filesystem::path& file) : model_(formats::GgufModel::open(file)) {}

  [[nodiscard]] const std::filesystem::path& path() const override { return model_.path(); }
  [[nodiscard]] std::vector<std::string> names() const override;
  [[nodiscard]] bool has(const std::string& name) const override { return model_.entries().contains(name); }
  // Blocks of integers as the float32 values that they stand for. Rows of query and key heads in Hugging Face's order (Note [Rotary pairs]).
  [[nodiscard]] Tensor tensor(const std::string& name) const override;

  [[nodiscard]] std::optional<formats::GgmlType> block_type(const std::string& name) const override;

  [[nodiscard]] const formats::GgufModel& model() const { return model_; }

 private:
  const formats::GgufModel model_;
};

}  // namespace penstock::weights
