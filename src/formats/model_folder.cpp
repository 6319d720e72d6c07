#include "formats/model_folder.h"

#include <algorithm>

#include "base/file.h"

namespace penstock::formats {

namespace fs = std::filesystem;

Result<std::vector<TensorEntry>> list_model_tensors(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code failed;
  for (const auto& entry : fs::directory_iterator(folder, failed)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (failed) return error(Code::kNotFound, "{}: {}", folder.string(), failed.message());
  if (files.empty()) return error(Code::kNotFound, "{}: expected *.safetensors files, found none", folder.string());
  std::sort(files.begin(), files.end());

  std::vector<TensorEntry> tensors;
  try {
    for (const fs::path& file : files) {
      const auto map = MappedFile::open(file);
      if (!map) return map.error();
      SafetensorsHeader header = parse_safetensors_header(map.value().bytes(), file.string());
      std::move(header.tensors.begin(), header.tensors.end(), std::back_inserter(tensors));
    }
  } catch (const Error& wrong) {
    return wrong;
  }
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) { return a.name == b.name; });
  if (twice != tensors.end()) return error(Code::kDataLoss, "{}: two files hold tensor '{}'", folder.string(), twice->name);
  return tensors;
}

}  // namespace penstock::formats
