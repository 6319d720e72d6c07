#pragma once
// Weights and optimizer state from a checkpoint, into whatever layout this run has.
#include <filesystem>

#include "formats/checkpoint_folder.h"
#include "train/train_state.h"

namespace penstock::train {

// Fills parameters, moments, rounding errors and position; reads and checks the bytes of this rank's tensors only. Collective over the replicas where
// state.trainer rounds. Throws Error kDataLoss naming file, tensor, expected and found.
void read_checkpoint(const std::filesystem::path& checkpoint, TrainState& state);

}  // namespace penstock::train
