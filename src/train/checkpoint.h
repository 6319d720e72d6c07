#pragma once
// Weights and optimizer state on disk, complete or not there.
//
// A checkpoint is a folder step-00000050 of stage files (safetensors) and manifest.json. Tensors have the names and shapes of the
// Hugging Face checkpoint, moments with ".m" and ".v" behind: nothing in it depends on how the model was cut, so any layout loads any.
// It is written as step-00000050.writing, each file fsynced, and renamed when all stages are done: a torn one never has the final name.
#include <filesystem>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "train/train_state.h"

namespace penstock::train {

struct CheckpointPlace {
  std::filesystem::path folder;  // of all checkpoints of the run
  int pipe_rank = 0;             // of this rank: one file for each
  int pipe_ranks = 1;
  bool writes = true;            // one replica of each does
};

// Collective over `world` (two barriers). Keeps the `keep` newest. Throws Error.
void write_checkpoint(comm::Communicator& world, const CheckpointPlace& place, const TrainState& state, const std::string& config_yaml,
                      int keep, Deadline deadline);

// The newest complete checkpoint: final name, readable manifest, every file there with its length. Incomplete ones are logged and skipped.
[[nodiscard]] std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);

// The configuration of the run that wrote it, as YAML. Throws Error kDataLoss.
[[nodiscard]] std::string checkpoint_config(const std::filesystem::path& checkpoint);

// Fills parameters, moments and position. Throws Error kDataLoss naming file, tensor, expected and found.
void read_checkpoint(const std::filesystem::path& checkpoint, TrainState& state);

}  // namespace penstock::train
