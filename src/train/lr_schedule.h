#pragma once
// The learning rate over a run.
#include <cstdint>

#include "config/train_config.h"

namespace penstock::train {

// Linear warm-up over `warmup_steps`, then from lr to lr · min_lr_ratio as `progress` goes from 0 to 1: by half a cosine (Loshchilov and Hutter
// 2017, arXiv 1608.03983), in a straight line, not at all, or constant until the last `decay_fraction` and then in a straight line.
// `step` counts from 0.
[[nodiscard]] double learning_rate(const config::OptimizerConfig& optimizer, int64_t step, double progress);

// How much of the run is over, 0 … 1: by steps or by time, whichever is further. A limit of 0 does not count.
[[nodiscard]] double run_progress(int64_t step, int64_t steps, double elapsed_seconds, double max_seconds);

}  // namespace penstock::train
