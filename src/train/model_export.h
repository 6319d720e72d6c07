#pragma once
// The trained model as an ordinary Hugging Face directory.
#include <filesystem>

#include "comm/communicator.h"
#include "train/pipeline_trainer.h"
#include "train/run_model.h"

namespace penstock::train {

// Collective over `world`. `tensor`: the ranks that share this rank's layers; null: none. The first replica's ranks write their weights in the dtype of `model`, in shards; rank 0 joins them where the whole is
// small, or writes the index, and the model's description. Written beside `folder` and renamed when whole. The same model gives the same
// model.safetensors, whatever the layout.
// All ranks must see the same file system. Throws Error.
void export_model(comm::Communicator& world, comm::Communicator* tensor, const std::filesystem::path& folder, const RunModel& model, PipelineTrainer& trainer);

}  // namespace penstock::train
