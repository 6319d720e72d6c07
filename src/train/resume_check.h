#pragma once
// Whether a checkpoint is of the model that a run trains.
#include <filesystem>

#include "train/run_model.h"

namespace penstock::train {

// Compares the model's description in the checkpoint with the run's model, whose files (model.path, a prepared text's tokenizer) may have been replaced since.
// Throws Error: kInvalidArgument naming what differs with both values (a key of config.json that changes what is computed), or the tokenizer; kDataLoss,
// kNotFound where the description cannot be read. One without a description, of an older version, passes.
void require_same_model(const std::filesystem::path& checkpoint, const RunModel& model);

}  // namespace penstock::train
