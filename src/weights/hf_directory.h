#pragma once
// A model as Hugging Face keeps it: a folder with config.json and either model.safetensors or shards with model.safetensors.index.json.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "weights/safetensors.h"

namespace penstock::weights {

// Reads the weights of one folder by name. A shard is mapped when the first of its tensors is asked for, so a pipeline stage
// maps only what it reads.
//
// Threads: any.
// Errors:  kNotFound or kDataLoss naming file and tensor; kUnimplemented for a dtype that we do not read.
class HfDirectory {
 public:
  // Throws Error when there are no weights, or a shard that the index names is absent or not a file of this folder.
  [[nodiscard]] static HfDirectory open(const std::filesystem::path& folder);
  HfDirectory(HfDirectory&&) noexcept;
  HfDirectory& operator=(HfDirectory&&) noexcept;
  ~HfDirectory();

  [[nodiscard]] const std::filesystem::path& folder() const;
  [[nodiscard]] std::vector<std::string> names() const;  // sorted
  [[nodiscard]] bool has(const std::string& name) const;
  // As SafetensorsFile::tensor(): a read-only view of the mapped file.
  [[nodiscard]] Tensor tensor(const std::string& name) const;
  // How many files have been mapped so far.
  [[nodiscard]] int num_open_files() const;

 private:
  struct Impl;
  explicit HfDirectory(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// config.json of the folder. Throws Error kNotFound (absent), kInvalidArgument (not a JSON object: file and byte).
[[nodiscard]] nlohmann::json read_config_json(const std::filesystem::path& folder);

}  // namespace penstock::weights
