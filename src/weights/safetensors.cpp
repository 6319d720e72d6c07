#include "weights/safetensors.h"

#include <ATen/ATen.h>

#include <cstring>
#include <string_view>
#include <unordered_map>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/file.h"
#include "tensor/dtype.h"
#include "formats/safetensors_header.h"

namespace penstock::weights {

using formats::SafetensorsHeader;
using formats::TensorEntry;

struct SafetensorsFile::Impl {
  std::string path;
  std::shared_ptr<const MappedFile> map;  // shared with every view that tensor() made
  std::vector<std::string> names;
  std::unordered_map<std::string, TensorEntry> entries;
  std::map<std::string, std::string> metadata;

  [[nodiscard]] const TensorEntry& entry(const std::string& name) const {
    const auto found = entries.find(name);
    if (found == entries.end()) throw error(Code::kNotFound, "{} holds no tensor '{}'", path, name);
    return found->second;
  }
};

SafetensorsFile::SafetensorsFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  auto impl = std::make_unique<Impl>();
  impl->path = path.string();
  impl->map = std::make_shared<const MappedFile>(MappedFile::open(path).value());
  SafetensorsHeader header = formats::parse_safetensors_header(impl->map->bytes(), impl->path);
  impl->metadata = std::move(header.metadata);
  for (TensorEntry& entry : header.tensors) {
    impl->names.push_back(entry.name);
    impl->entries.emplace(entry.name, std::move(entry));
  }
  return SafetensorsFile(std::move(impl));
}

const std::vector<std::string>& SafetensorsFile::names() const { return impl_->names; }
bool SafetensorsFile::has(const std::string& name) const { return impl_->entries.contains(name); }
uint64_t SafetensorsFile::bytes(const std::string& name) const { return impl_->entry(name).end - impl_->entry(name).begin; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return impl_->metadata; }

Tensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorEntry& entry = impl_->entry(name);
  const auto dtype = tensor::parse_safetensors_dtype(entry.dtype);
  if (!dtype) {
    throw error(Code::kUnimplemented, "{}: tensor '{}' has dtype {}; expected one of F32, F16, BF16, F64, I64, I32, U8", impl_->path, name,
                entry.dtype);
  }
  if (entry.begin == entry.end) return at::empty(entry.shape, at::TensorOptions(*dtype));
  const std::byte* first = impl_->map->bytes().data() + entry.begin;
  if (reinterpret_cast<uintptr_t>(first) % formats::safetensors_element_bytes(entry.dtype) != 0) {
    Tensor copy = at::empty(entry.shape, at::TensorOptions(*dtype));
    std::memcpy(copy.data_ptr(), first, entry.end - entry.begin);
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(first), entry.shape, [map = impl_->map](void* /*data*/) {}, at::TensorOptions(*dtype));
}

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorEntry> entries;
  entries.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    entries.push_back({.name = name, .dtype = std::string(tensor::safetensors_dtype_name(tensor.scalar_type())), .shape = tensor.sizes().vec()});
  }
  AtomicFile file(path);
  file.write(formats::format_safetensors_header(entries, metadata));
  for (const auto& [name, tensor] : tensors) {
    const Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
    if (bytes.numel() > 0) file.write({static_cast<const char*>(bytes.data_ptr()), bytes.nbytes()});
  }
  file.commit();
}

}  // namespace penstock::weights
