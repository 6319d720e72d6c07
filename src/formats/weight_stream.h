#pragma once
// Writes the weights of a Hugging Face directory tensor by tensor, without holding them.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "formats/safetensors_header.h"

namespace penstock::formats {

inline constexpr uint64_t kMaxShardBytes = 5'000'000'000;  // as transformers writes

// "model-00001-of-00002.safetensors" for shard 0 of 2.
[[nodiscard]] std::string shard_file_name(int shard, int num_shards);

// model.safetensors, or where that would have more than `max_shard_bytes` shards with model.safetensors.index.json.
//
// Threads: one.
// Errors:  throws Error kDataLoss (a disk that is full) naming the file.
class WeightStream {
 public:
  // `tensors`: all that will come, in this order; begin and end are ignored.
  WeightStream(std::filesystem::path folder, std::vector<TensorEntry> tensors, uint64_t max_shard_bytes);
  // The bytes of the next tensor. REQUIRES: as many as its dtype and shape have.
  void add(std::span<const std::byte> bytes);
  // REQUIRES: every tensor was added.
  void finish();

 private:
  void open_shard();

  const std::filesystem::path folder_;
  const std::vector<TensorEntry> tensors_;
  std::vector<size_t> shard_ends_;  // of shard s: one past its last tensor
  std::map<std::string, std::string> file_of_;
  uint64_t total_bytes_ = 0;
  size_t next_ = 0, shard_ = 0;
  std::unique_ptr<AtomicFile> file_;
};

}  // namespace penstock::formats
