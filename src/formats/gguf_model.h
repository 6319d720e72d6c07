#pragma once
// A GGUF file as a model of Hugging Face's names: which tensors it has, and their bytes.
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "formats/gguf_file.h"
#include "formats/gguf_names.h"

namespace penstock::formats {

// The GGUF file that a model's path means: `model` itself, or the only *.gguf file of a folder without config.json. nullopt: it is no GGUF model.
// Throws Error kInvalidArgument for a folder with several, naming them.
[[nodiscard]] std::optional<std::filesystem::path> find_gguf(const std::filesystem::path& model);

// `model` is a GGUF file, or a folder with one or more.
[[nodiscard]] bool holds_gguf(const std::filesystem::path& model);

// The header of a file, whose weights are not looked at. Throws Error as parse_gguf(), kNotFound.
[[nodiscard]] GgufHeader read_gguf_header(const std::filesystem::path& file);

// Threads: const after open; any thread.
class GgufModel {
 public:
  struct Entry {
    const GgufTensor* tensor;
    GgufPlace place;
  };

  // Maps the file; reads its header and no weights. Throws Error: those of parse_gguf() and gguf_shape(); kUnimplemented for a tensor that has no
  // place in this architecture, naming it, and for a file that is one of several.
  [[nodiscard]] static GgufModel open(const std::filesystem::path& file);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] const GgufHeader& header() const { return *header_; }
  [[nodiscard]] const GgufShape& shape() const { return shape_; }
  // As config_of_gguf().
  [[nodiscard]] std::string config() const;

  // By Hugging Face's name.
  [[nodiscard]] const std::map<std::string, Entry>& entries() const { return entries_; }
  // The shape in a Hugging Face checkpoint.
  [[nodiscard]] std::vector<int64_t> hugging_face_shape(const Entry& entry) const;
  // The blocks of the tensor as the file has them, rows in Hugging Face's order: a view of the file, or of `storage`. Not transposed.
  [[nodiscard]] std::span<const std::byte> rows(const Entry& entry, std::vector<std::byte>& storage) const;
  // Keeps the mapped file for views of it.
  [[nodiscard]] const std::shared_ptr<const MappedFile>& map() const { return map_; }

 private:
  GgufModel() = default;
  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> map_;
  std::unique_ptr<const GgufHeader> header_;  // its tensors are pointed at
  GgufShape shape_;
  std::map<std::string, Entry> entries_;
};

}  // namespace penstock::formats
