#include "formats/gguf_model.h"

#include <algorithm>

#include "formats/gguf_config.h"

namespace penstock::formats {

namespace fs = std::filesystem;

namespace {

// The file itself, or those in the folder, sorted.
std::vector<fs::path> gguf_files(const fs::path& model) {
  std::error_code failed;
  std::vector<fs::path> files;
  if (fs::is_regular_file(model, failed)) {
    if (model.extension() == ".gguf") files.push_back(model);
    return files;
  }
  for (auto entry = fs::directory_iterator(model, failed); !failed && entry != fs::directory_iterator(); entry.increment(failed)) {
    if (entry->path().extension() == ".gguf") files.push_back(entry->path());
  }
  std::ranges::sort(files);
  return files;
}

}  // namespace

bool holds_gguf(const fs::path& model) { return !gguf_files(model).empty(); }

std::optional<fs::path> find_gguf(const fs::path& model) {
  std::error_code failed;
  if (fs::exists(model / "config.json", failed)) return std::nullopt;
  const std::vector<fs::path> files = gguf_files(model);
  if (files.empty()) return std::nullopt;
  if (files.size() == 1) return files.front();
  throw error(Code::kInvalidArgument, "{}: there are {} GGUF files, {} and {} among them; name one of them as the model", model.string(), files.size(),
              files[0].filename().string(), files[1].filename().string());
}

GgufHeader read_gguf_header(const fs::path& file) {
  const MappedFile map = MappedFile::open(file).value();
  return parse_gguf(map.bytes(), file.string());
}

GgufModel GgufModel::open(const fs::path& file) {
  GgufModel model;
  model.path_ = file;
  model.map_ = std::make_shared<const MappedFile>(MappedFile::open(file).value());
  model.header_ = std::make_unique<const GgufHeader>(parse_gguf(model.map_->bytes(), file.string()));
  const GgufHeader& header = *model.header_;
  model.shape_ = gguf_shape(header);
  if (header.integer("split.count", 0, 65535).value_or(0) > 1) throw header.unsupported("split.count", "a model in several files; join them with llama-gguf-split --merge; this");
  for (const GgufTensor& tensor : header.tensors) {
    if (tensor.name == kRopeFactors) continue;
    const auto name = hugging_face_name(model.shape_, tensor.name);
    if (!name) throw error(Code::kUnimplemented, "{}: tensor '{}' has no place in architecture {}", header.file, tensor.name, model.shape_.architecture);
    GgufPlace place = *gguf_place(model.shape_, *name);
    if (place.num_heads > 0 && tensor.shape[0] % (2 * place.num_heads) != 0) {
      throw error(Code::kDataLoss, "{}: tensor '{}' has {} rows; expected an even number for each of {} heads", header.file, tensor.name, tensor.shape[0], place.num_heads);
    }
    if (place.transposed && tensor.shape.size() != 2) {
      throw error(Code::kDataLoss, "{}: tensor '{}' has {} dims; expected 2", header.file, tensor.name, tensor.shape.size());
    }
    model.entries_.emplace(*name, Entry{&tensor, std::move(place)});
  }
  return model;
}

std::string GgufModel::config() const {
  std::vector<float> factors;
  if (const GgufTensor* tensor = header_->find_tensor(kRopeFactors)) {
    if (tensor->type != GgmlType::kF32 || tensor->shape.size() != 1) throw error(Code::kDataLoss, "{}: tensor '{}': expected F32 of 1 dim", header_->file, tensor->name);
    factors.resize(static_cast<size_t>(tensor->shape[0]));
    dequantize(tensor->type, map_->bytes().subspan(tensor->begin, tensor->end - tensor->begin), factors);
  }
  return config_of_gguf(*header_, factors);
}

std::vector<int64_t> GgufModel::hugging_face_shape(const Entry& entry) const {
  std::vector<int64_t> shape = entry.tensor->shape;
  if (entry.place.transposed) std::ranges::reverse(shape);
  return shape;
}

std::span<const std::byte> GgufModel::rows(const Entry& entry, std::vector<std::byte>& storage) const {
  const auto bytes = map_->bytes().subspan(entry.tensor->begin, entry.tensor->end - entry.tensor->begin);
  if (entry.place.num_heads == 0) return bytes;
  storage = rows_from_llama(bytes, entry.tensor->shape[0], entry.place.num_heads);
  return storage;
}

}  // namespace penstock::formats
