#pragma once
// The trained model as an ordinary Hugging Face directory.
#include <filesystem>
#include <vector>

#include "comm/communicator.h"
#include "model/layer.h"
#include "model/llama_config.h"

namespace penstock::train {

// Collective over `world` (barriers). `writes`: this rank writes stage `stage` of `num_stages` as a shard (one replica of each stage does);
// rank 0 writes index, config.json, generation_config.json and the byte tokenizer. Written beside `folder` and renamed when whole.
// All ranks must see the same file system. Throws Error.
void export_model(comm::Communicator& world, const std::filesystem::path& folder, const model::LlamaConfig& config,
                  const std::vector<model::Parameter>& parameters, int stage, int num_stages, bool writes, Deadline deadline);

}  // namespace penstock::train
