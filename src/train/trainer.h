#pragma once
// A training run, as one of its ranks sees it.
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "config/train_config.h"
#include "train/step_metrics.h"

namespace penstock::train {

struct TrainSummary;

struct TrainOptions {
  bool resume = false;     // continue from the newest complete checkpoint of the run folder
  bool auto_resume = false;  // the same where there is one, else begin; of this and of resume, rank 0's count
  bool overwrite = false;  // a run folder that holds checkpoints may be started anew
  bool quiet = false;      // no progress line
  // Called on every rank when all is written and all ranks know it, while the groups still stand; a process may end itself in it.
  std::function<void(const TrainSummary&)> on_finished = {};
  int local_rank = 0;      // among the ranks of this machine: which GPU it takes
  const std::atomic<bool>* stop = nullptr;  // set by a signal: all ranks stop after the same step, write a checkpoint and the model
};

struct TrainSummary {
  int64_t steps = 0;
  double seconds = 0;          // of training, validation included
  double train_loss = 0;       // nats per token, mean of the last report
  double validation_loss = 0;  // nats per byte over the whole held-out text
  double tokens_per_second = 0;
  double mfu = 0;
  double bubble_share = 0;     // measured
  double planned_bubble = 0;   // of this schedule on equal stages without hops
  double exposed_share = 0;
  int64_t skipped_steps = 0;
  int64_t overflowed_steps = 0;  // of those: gradients of precision fp16
  std::vector<Straggler> stragglers;                             // the slowest first
  std::vector<std::pair<std::string_view, double>> time;         // where the time of this process went, mean seconds over the ranks
  // Of the rank that has held the most: the process at its peak, and what of it the run is made of.
  struct Memory {
    double peak_bytes = 0, weight_bytes = 0, gradient_bytes = 0, optimizer_bytes = 0;
    double gpu_bytes = 0;  // in use on the GPU by all its processes; 0 = on the CPU
  };
  Memory memory;
  bool stopped = false;        // by a signal, before its end
  std::vector<double> losses;  // nats per token of every step of this process
};

// "bf16 on cuda": what `precision` and `device` come to on this machine, which must be alike on all ranks. Errors: throws Error where there is no such device.
[[nodiscard]] std::string computes_in(const config::TrainConfig& config, int local_rank);

// Runs to the end. Collective over `world`, whose size is mesh.data · mesh.pipe; everything a run needs of the others goes through it.
//
// Writes into config.output: config.yaml, metrics.jsonl, tensorboard/, loss.svg, timeline.json (as soon as its steps have run), model/ and
// checkpoints/.
// Threads:  the caller's, LibTorch's compute threads, and the communicator's.
// Blocking: for the whole run; every wait between ranks ends at config.timeout_seconds.
// Errors:   throws Error; the group is then dead on every rank. A loss or gradient that is not finite stops all ranks at the same step.
[[nodiscard]] TrainSummary train(const config::TrainConfig& config, comm::Communicator& world, const TrainOptions& options);

}  // namespace penstock::train
