#include "formats/model_folder.h"

#include <algorithm>

namespace penstock::formats {

namespace fs = std::filesystem;

MappedModel::MappedModel(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path());
  }
  if (failed) throw error(Code::kNotFound, "{}: {}", folder.string(), failed.message());
  if (paths.empty()) throw error(Code::kNotFound, "{}: expected *.safetensors files, found none", folder.string());
  std::sort(paths.begin(), paths.end());

  std::vector<std::pair<TensorEntry, size_t>> found;
  for (const fs::path& path : paths) {
    files_.push_back(MappedFile::open(path).value());
    for (TensorEntry& tensor : parse_safetensors_header(files_.back().bytes(), path.string()).tensors) found.emplace_back(std::move(tensor), files_.size() - 1);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first.name < b.first.name; });
  for (auto& [tensor, file] : found) {
    if (!tensors_.empty() && tensors_.back().name == tensor.name) throw error(Code::kDataLoss, "{}: two files hold tensor '{}'", folder.string(), tensor.name);
    tensors_.push_back(std::move(tensor));
    file_of_.push_back(file);
  }
}

std::span<const std::byte> MappedModel::bytes(size_t tensor) const {
  const TensorEntry& entry = tensors_.at(tensor);
  return files_[file_of_[tensor]].bytes().subspan(entry.begin, entry.end - entry.begin);
}

Result<std::vector<TensorEntry>> list_model_tensors(const fs::path& folder) {
  try {
    return MappedModel(folder).tensors();
  } catch (const Error& wrong) {
    return wrong;
  }
}

}  // namespace penstock::formats
