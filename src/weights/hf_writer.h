#pragma once
// Writes a model's weights as Hugging Face keeps them: shards model-0000i-of-0000n.safetensors and model.safetensors.index.json.
// Every file appears under its name only when complete; the index comes last. A reader that must never see a mixture of an old and a new model
// is given a new folder, renamed when written.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "weights/safetensors.h"

namespace penstock::weights {

// "model-00001-of-00002.safetensors" for shard 0 of 2.
[[nodiscard]] std::string shard_file_name(int shard, int num_shards);

// One process writes all: `tensors` in this order, a new shard whenever the next tensor would make it larger than `max_shard_bytes`
// (a larger tensor has a shard of its own). Throws Error kDataLoss, kUnimplemented (dtype), kInvalidArgument (no tensors, a name twice).
void write_hf_weights(const std::filesystem::path& folder, const std::vector<NamedTensor>& tensors, uint64_t max_shard_bytes);

// Several processes write to one folder: each its own shard; then, after all have returned (a barrier), one of them the index.
void write_shard(const std::filesystem::path& folder, int shard, int num_shards, const std::vector<NamedTensor>& tensors);

// Reads the headers of the shards 0 … num_shards-1 and writes the index; then removes weight files of an earlier write that the index
// does not name. Throws Error kNotFound (a shard is absent), kInvalidArgument (a tensor is in two shards; names both).
void write_index(const std::filesystem::path& folder, int num_shards);

}  // namespace penstock::weights
