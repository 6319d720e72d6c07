#pragma once
// What a run consists of beside its configuration: this rank's weights, optimizer state, and where the run stands.
#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "model/layer.h"
#include "train/loss_scaler.h"
#include "train/optimizer.h"
#include "train/step_guard.h"

namespace penstock::train {

// Where a run stands; the same on every rank.
struct RunPosition {
  int64_t step = 0;            // steps done
  double elapsed_seconds = 0;  // of training, by rank 0's clock
  int64_t tokens = 0;          // trained on
};

class PipelineTrainer;

struct TrainState {
  std::vector<model::Parameter>* parameters = nullptr;
  ParameterShards* shards = nullptr;
  Optimizer* optimizer = nullptr;
  RunPosition position;
  StepGuard::State guard = {};
  comm::Communicator* tensor = nullptr;  // the ranks that share these parameters; null: none
  LossScaler::State scaler = {};
  PipelineTrainer* trainer = nullptr;    // whose rounding errors (rounding_errors.h) and number of updates belong to it; null: nobody's
};

}  // namespace penstock::train
