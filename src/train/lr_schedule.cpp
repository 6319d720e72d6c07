#include "train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace penstock::train {

namespace {

// How much of the way from the peak to the floor is still to go: 1 … 0.
double height(const config::OptimizerConfig& optimizer, double progress) {
  switch (optimizer.schedule) {
    case config::LearningRateSchedule::kCosine: return 0.5 * (1 + std::cos(std::numbers::pi * progress));
    case config::LearningRateSchedule::kLinear: return 1 - progress;
    case config::LearningRateSchedule::kConstant: return 1;
    case config::LearningRateSchedule::kWarmupStableDecay: return std::min(1.0, (1 - progress) / optimizer.decay_fraction);
  }
  return 1;
}

}  // namespace

double learning_rate(const config::OptimizerConfig& optimizer, int64_t step, double progress) {
  const double decayed = optimizer.lr * (optimizer.min_lr_ratio + (1 - optimizer.min_lr_ratio) * height(optimizer, std::clamp(progress, 0.0, 1.0)));
  if (step >= optimizer.warmup_steps) return decayed;
  return decayed * static_cast<double>(step + 1) / static_cast<double>(optimizer.warmup_steps + 1);
}

double run_progress(int64_t step, int64_t steps, double elapsed_seconds, double max_seconds) {
  const double by_steps = steps > 0 ? static_cast<double>(step) / static_cast<double>(steps) : 0;
  const double by_time = max_seconds > 0 ? elapsed_seconds / max_seconds : 0;
  return std::clamp(std::max(by_steps, by_time), 0.0, 1.0);
}

}  // namespace penstock::train
