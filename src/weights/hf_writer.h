#pragma once
// Writes a model's weights as Hugging Face keeps them: model.safetensors, or where that would be too large shards model-0000i-of-0000n.safetensors
// and model.safetensors.index.json.
// Every file appears under its name only when complete; the index comes last. A reader that must never see a mixture of an old and a new model
// is given a new folder, renamed when written.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "weights/safetensors.h"

namespace penstock::weights {

// In this order, a new shard whenever the next tensor would make it larger than `max_shard_bytes` (a larger tensor has a shard of its own).
[[nodiscard]] std::vector<std::vector<NamedTensor>> cut_into_shards(const std::vector<NamedTensor>& tensors, uint64_t max_shard_bytes);

// One process writes all. Throws Error kDataLoss, kUnimplemented (dtype), kInvalidArgument (no tensors, a name twice).
void write_hf_weights(const std::filesystem::path& folder, const std::vector<NamedTensor>& tensors, uint64_t max_shard_bytes);

// Several processes write to one folder: each its own shards; then, after all have returned (a barrier), one of them finish_shards().
void write_shard(const std::filesystem::path& folder, int shard, int num_shards, const std::vector<NamedTensor>& tensors);

// Reads the headers of the shards 0 … num_shards-1. Where all together have no more than `max_shard_bytes`, copies them into one
// model.safetensors, tensors by name; else writes the index. Then removes all other weight files of the folder.
// Throws Error kNotFound (a shard is absent), kInvalidArgument (a tensor is in two shards; names both).
void finish_shards(const std::filesystem::path& folder, int num_shards, uint64_t max_shard_bytes);

}  // namespace penstock::weights
