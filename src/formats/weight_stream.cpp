#include "formats/weight_stream.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/file.h"

namespace penstock::formats {
namespace {

// What Hugging Face's loader asks of a safetensors file.
const std::map<std::string, std::string> kMetadata = {{"format", "pt"}};

uint64_t bytes_of(const TensorEntry& tensor) {
  uint64_t bytes = safetensors_element_bytes(tensor.dtype);
  for (const int64_t size : tensor.shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

}  // namespace

std::string shard_file_name(int shard, int num_shards) {
  PENSTOCK_CHECK(0 <= shard && shard < num_shards && num_shards <= 99999, "shard {} of {}", shard, num_shards);
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, num_shards);
}

WeightStream::WeightStream(std::filesystem::path folder, std::vector<TensorEntry> tensors, uint64_t max_shard_bytes)
    : folder_(std::move(folder)), tensors_(std::move(tensors)) {
  uint64_t shard_bytes = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const uint64_t bytes = bytes_of(tensors_[i]);
    if (shard_bytes > 0 && shard_bytes + bytes > max_shard_bytes) {
      shard_ends_.push_back(i);
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    total_bytes_ += bytes;
  }
  shard_ends_.push_back(tensors_.size());
}

void WeightStream::open_shard() {
  const size_t begin = shard_ == 0 ? 0 : shard_ends_[shard_ - 1];
  const std::vector<TensorEntry> mine(tensors_.begin() + static_cast<std::ptrdiff_t>(begin), tensors_.begin() + static_cast<std::ptrdiff_t>(shard_ends_[shard_]));
  const std::string name = shard_ends_.size() == 1 ? "model.safetensors" : shard_file_name(static_cast<int>(shard_), static_cast<int>(shard_ends_.size()));
  for (const TensorEntry& tensor : mine) file_of_[tensor.name] = name;
  file_ = std::make_unique<AtomicFile>(folder_ / name);
  file_->write(format_safetensors_header(mine, kMetadata));
}

void WeightStream::add(std::span<const std::byte> bytes) {
  PENSTOCK_CHECK(next_ < tensors_.size() && bytes.size() == bytes_of(tensors_[next_]), "tensor {} of {} with {} bytes", next_, tensors_.size(), bytes.size());
  if (!file_) open_shard();
  file_->write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (++next_ < shard_ends_[shard_]) return;
  file_->commit();
  file_.reset();
  ++shard_;
}

void WeightStream::finish() {
  PENSTOCK_CHECK(next_ == tensors_.size(), "{} of {} tensors were written", next_, tensors_.size());
  if (shard_ends_.size() == 1) return;
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", file_of_}};
  write_file_atomic(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace penstock::formats
