#include "train/loss_scaler.h"

#include <algorithm>

namespace penstock::train {
namespace {

constexpr double kGrowth = 2, kLeast = 1;

}  // namespace

double LossScaler::took() {
  if (!active_ || ++state_.good_steps < growth_steps_) return 1;
  state_.good_steps = 0;
  state_.scale *= kGrowth;
  return kGrowth;
}

bool LossScaler::overflowed() {
  if (!active_ || state_.scale <= kLeast) return false;
  state_.scale = std::max(kLeast, state_.scale / kGrowth);
  state_.good_steps = 0;
  ++state_.overflows;
  return true;
}

void LossScaler::restore(const State& state) {
  if (state.scale > 0) {
    state_.scale = state.scale;
    state_.good_steps = state.good_steps;
  }
  state_.overflows = state.overflows;
}

}  // namespace penstock::train
