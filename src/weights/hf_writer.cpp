#include "weights/hf_writer.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "formats/weight_stream.h"

namespace penstock::weights {

using formats::shard_file_name;

namespace {

// What Hugging Face's loader asks of a safetensors file.
const std::map<std::string, std::string> kMetadata = {{"format", "pt"}};

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

bool is_weight_file(const std::string& name) { return name.starts_with("model") && name.ends_with(".safetensors"); }

// A model.safetensors of an earlier write would win over the index.
void remove_other_weight_files(const std::filesystem::path& folder, const std::set<std::string>& keep) {
  std::vector<std::filesystem::path> others;
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    const std::string name = item.path().filename().string();
    if (is_weight_file(name) && !keep.contains(name)) others.push_back(item.path());
  }
  for (const std::filesystem::path& path : others) std::filesystem::remove(path);
}

void require_unique_names(const std::vector<NamedTensor>& tensors) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) {
    if (!names.insert(name).second) throw error(Code::kInvalidArgument, "tensor '{}' is given twice", name);
  }
}

}  // namespace

std::vector<std::vector<NamedTensor>> cut_into_shards(const std::vector<NamedTensor>& tensors, uint64_t max_shard_bytes) {
  std::vector<std::vector<NamedTensor>> shards(1);
  uint64_t shard_bytes = 0;
  for (const NamedTensor& tensor : tensors) {
    const uint64_t bytes = tensor.second.nbytes();
    if (!shards.back().empty() && (bytes > max_shard_bytes || shard_bytes > max_shard_bytes - bytes)) {
      shards.emplace_back();
      shard_bytes = 0;
    }
    shards.back().push_back(tensor);
    shard_bytes += bytes;
  }
  return shards;
}

void write_hf_weights(const std::filesystem::path& folder, const std::vector<NamedTensor>& tensors, uint64_t max_shard_bytes) {
  if (tensors.empty()) throw error(Code::kInvalidArgument, "no tensors to write to {}", folder.string());
  require_unique_names(tensors);
  const std::vector<std::vector<NamedTensor>> shards = cut_into_shards(tensors, max_shard_bytes);
  const int num_shards = static_cast<int>(shards.size());
  for (int shard = 0; shard < num_shards; ++shard) write_shard(folder, shard, num_shards, shards[static_cast<size_t>(shard)]);
  finish_shards(folder, num_shards, max_shard_bytes);
}

void write_shard(const std::filesystem::path& folder, int shard, int num_shards, const std::vector<NamedTensor>& tensors) {
  require_unique_names(tensors);
  write_safetensors(folder / shard_file_name(shard, num_shards), tensors, kMetadata);
}

void finish_shards(const std::filesystem::path& folder, int num_shards, uint64_t max_shard_bytes) {
  std::vector<NamedTensor> tensors;  // views of the mapped shards
  std::map<std::string, std::string> weight_map;
  std::set<std::string> files;
  uint64_t total_bytes = 0;
  for (int shard = 0; shard < num_shards; ++shard) {
    const std::string file_name = shard_file_name(shard, num_shards);
    const SafetensorsFile file = SafetensorsFile::open(folder / file_name);
    files.insert(file_name);
    for (const std::string& tensor : file.names()) {
      const auto [first, is_new] = weight_map.emplace(tensor, file_name);
      if (!is_new) {
        throw error(Code::kInvalidArgument, "tensor '{}' is in {} and in {} of {}; expected in one", tensor, first->second, file_name,
                    folder.string());
      }
      total_bytes += file.bytes(tensor);
      tensors.emplace_back(tensor, file.tensor(tensor));
    }
  }
  if (total_bytes <= max_shard_bytes) {
    std::ranges::sort(tensors, {}, &NamedTensor::first);
    write_safetensors(folder / kSingleFile, tensors, kMetadata);
    remove_other_weight_files(folder, {kSingleFile});
    std::filesystem::remove(folder / kIndexFile);
    return;
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes}}}, {"weight_map", weight_map}};
  write_file_atomic(folder / kIndexFile, index.dump(2) + "\n");
  remove_other_weight_files(folder, files);
}

}  // namespace penstock::weights
