#pragma once
// A model as Hugging Face keeps it: a folder with config.json and either model.safetensors or shards with model.safetensors.index.json.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "weights/model_files.h"
#include "weights/safetensors.h"

namespace penstock::weights {

// Reads the weights of one folder by name. A shard is mapped when the first of its tensors is asked for, so a pipeline stage
// maps only what it reads.
//
// Threads: any.
// Errors:  kNotFound or kDataLoss naming file and tensor; kUnimplemented for a dtype that we do not read.
class HfDirectory final : public ModelFiles {
 public:
  // Throws Error when there are no weights, or a shard that the index names is absent or not a file of this folder.
  [[nodiscard]] static HfDirectory open(const std::filesystem::path& folder);
  HfDirectory(HfDirectory&&) noexcept;
  HfDirectory& operator=(HfDirectory&&) noexcept;
  ~HfDirectory() override;

  [[nodiscard]] const std::filesystem::path& path() const override;
  [[nodiscard]] std::vector<std::string> names() const override;
  [[nodiscard]] bool has(const std::string& name) const override;
  // As SafetensorsFile::tensor(): a read-only view of the mapped file.
  [[nodiscard]] Tensor tensor(const std::string& name) const override;
  // How many files have been mapped so far.
  [[nodiscard]] int num_open_files() const;

 private:
  struct Impl;
  explicit HfDirectory(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::weights
