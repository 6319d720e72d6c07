#pragma once
// The trained model as an ordinary Hugging Face directory.
#include <filesystem>

#include "comm/communicator.h"
#include "model/llama_config.h"
#include "train/pipeline_trainer.h"

namespace penstock::train {

// config.json, generation_config.json and the byte tokenizer's files. Throws Error kDataLoss.
void write_model_description(const std::filesystem::path& folder, const model::LlamaConfig& config);

// Collective over `world` (barriers). The first replica's ranks write a shard each; rank 0 writes the index and the model
// description. Written beside `folder` and renamed when whole.
// All ranks must see the same file system. Throws Error.
void export_model(comm::Communicator& world, const std::filesystem::path& folder, const model::LlamaConfig& config,
                  PipelineTrainer& trainer);

}  // namespace penstock::train
