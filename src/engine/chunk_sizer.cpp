#include "engine/chunk_sizer.h"

#include <algorithm>

namespace penstock::engine {
namespace {

constexpr double kStepShare = 0.1, kRowShare = 0.3;  // of the newest figure in the running means

void take_into(double& mean, double value, double share) { mean = mean == 0 ? value : mean + share * (value - mean); }

}  // namespace

void ChunkSizer::observe(int streaming, int prompt_rows, double ms) {
  if (prompt_rows == 0) {
    if (streaming > 0) take_into(step_ms_, ms, kStepShare);
    return;
  }
  const bool beside = streaming > 0 && step_ms_ > 0;
  if (!beside && measured_beside_streams_) return;  // of prompts alone: a guess until there is better
  if (beside && !measured_beside_streams_) row_ms_ = 0;
  measured_beside_streams_ = beside;
  const double rows_ms = beside ? std::max(ms - step_ms_, 0.02 * ms) : ms;
  take_into(row_ms_, rows_ms / prompt_rows, kRowShare);
}

int ChunkSizer::prompt_rows() const {
  if (step_ms_ == 0 || row_ms_ == 0) return std::min(kFirstRows, max_rows_);
  const double rows = (kStretch - 1) * step_ms_ / row_ms_;
  return static_cast<int>(std::clamp(rows, static_cast<double>(std::min(kMinRows, max_rows_)), static_cast<double>(max_rows_)));
}

}  // namespace penstock::engine
