#include "train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace penstock::train {

double learning_rate(const config::OptimizerConfig& optimizer, int64_t step, double progress) {
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * std::clamp(progress, 0.0, 1.0)));
  const double decayed = optimizer.lr * (optimizer.min_lr_ratio + (1 - optimizer.min_lr_ratio) * cosine);
  if (step >= optimizer.warmup_steps) return decayed;
  return decayed * static_cast<double>(step + 1) / static_cast<double>(optimizer.warmup_steps + 1);
}

double run_progress(int64_t step, int64_t steps, double elapsed_seconds, double max_seconds) {
  const double by_steps = steps > 0 ? static_cast<double>(step) / static_cast<double>(steps) : 0;
  const double by_time = max_seconds > 0 ? elapsed_seconds / max_seconds : 0;
  return std::clamp(std::max(by_steps, by_time), 0.0, 1.0);
}

}  // namespace penstock::train
