#pragma once
// How much of the gradients' reduction a run hides behind its backward passes, by difference.
#include "comm/shaped_link.h"
#include "config/train_config.h"

namespace penstock::train {

struct OverlapOptions {
  comm::LinkShape link;  // between replicas; nothing set = as the network is
  int steps = 12;        // measured, after two of warm-up
  int local_rank = 0;    // which GPU it takes
};

// Medians over the rounds, of the slowest rank each; the same on every rank. The machine may be faster in one round than in the next, so differences
// are taken within a round.
struct OverlapReport {
  double without_us = 0;        // a step's other work: the reduction left out
  double communication_us = 0;  // longer than that: one bucket, reduced when all backward passes are over ...
  double exposed_us = 0;        // ... as configured
  double by_timestamps = 0;   // exposed communication / step, of the overlapped steps, from the ranks' own clocks
  int64_t bytes = 0;          // of one rank's gradients

  // 1 = all of it; can fall below 0 when overlapping costs more than it hides. 0 when there is nothing to hide.
  [[nodiscard]] double hidden_share() const { return communication_us > 0 ? 1 - exposed_us / communication_us : 0; }
};

// Three runs of the configured training take steps by turns, so that a slow moment of the machine meets all three alike: as configured, with one
// bucket for everything, and with replicas that do not reduce at all. Writes no files. Collective over `world`; needs mesh.data > 1 and no sharded
// gradients or parameters (kInvalidArgument). Throws Error as train().
[[nodiscard]] OverlapReport measure_overlap(const config::TrainConfig& config, comm::Communicator& world, const OverlapOptions& options);

}  // namespace penstock::train
