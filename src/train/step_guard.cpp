#include "train/step_guard.h"

#include <cmath>
#include <numeric>

#include "base/error.h"

namespace penstock::train {
namespace {

double mean_of(const std::deque<double>& values) { return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()); }

}  // namespace

double StepGuard::deviations(double loss) const {
  if (losses_.size() < kWindow) return 0;
  const double mean = mean_of(losses_);
  double square = 0;
  for (const double l : losses_) square += (l - mean) * (l - mean);
  const double deviation = std::sqrt(square / static_cast<double>(losses_.size()));
  return deviation > 0 ? (loss - mean) / deviation : 0;
}

StepGuard::Judgement StepGuard::judge(double loss, bool finite) {
  const double out = finite && config_.loss_spike > 0 ? deviations(loss) : 0;
  if (finite && (config_.loss_spike == 0 || out <= config_.loss_spike)) {
    losses_.push_back(loss);
    if (losses_.size() > kWindow) losses_.pop_front();
    in_a_row_ = 0;
    return {};
  }
  Judgement judgement{Verdict::kStop, finite ? fmt::format("a loss of {:.4f} is {:.1f} standard deviations over the mean {:.4f} of the last {}", loss, out, mean_of(losses_), kWindow) : ""};
  if (config_.action == config::BadStepAction::kStop) return judgement;
  if (in_a_row_ == config_.max_skips) {
    judgement.reason += fmt::format("{}{} steps before it were skipped (bad_step.max_skips)", finite ? "; " : "", in_a_row_);
    return judgement;
  }
  judgement.verdict = Verdict::kSkip;
  ++skipped_;
  ++in_a_row_;
  return judgement;
}

void StepGuard::restore(const State& state) {
  losses_.assign(state.losses.begin(), state.losses.end());
  skipped_ = state.skipped;
  in_a_row_ = state.in_a_row;
}

}  // namespace penstock::train
