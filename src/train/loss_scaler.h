#pragma once
// The factor that keeps small gradients of float16 products from vanishing, found while training.
#include <cstdint>

#include "config/train_config.h"

namespace penstock::train {

// The loss is multiplied by the scale before the backward pass, and the gradients are divided by it at the update. Gradients that overflow halve the scale, and the step is
// skipped; after a number of steps without an overflow it is doubled (Micikevicius et al. 2018, arXiv 1710.03740; the rule of torch.cuda.amp.GradScaler). Decided from
// numbers that all ranks have alike, so all decide alike. A scale that is not needed is 1.
//
// Threads: one.
class LossScaler {
 public:
  // Not `active`: the scale is 1, always.
  LossScaler(bool active, const config::Fp16Config& config) : active_(active), growth_steps_(config.growth_steps), state_{config.first_scale, 0, 0} {}

  [[nodiscard]] double scale() const { return active_ ? state_.scale : 1; }
  [[nodiscard]] bool active() const { return active_; }

  // A step was updated with; the factor by which the scale has changed.
  double took();
  // Gradients are not finite. False when that is not the scale's fault: there is none, or it is 1.
  [[nodiscard]] bool overflowed();

  // What a checkpoint keeps.
  struct State {
    double scale = 0;  // 0 = none
    int64_t good_steps = 0;  // since it changed
    int64_t overflows = 0;   // steps skipped in all
  };
  [[nodiscard]] State state() const { return {active_ ? state_.scale : 0, state_.good_steps, state_.overflows}; }
  void restore(const State& state);

 private:
  const bool active_;
  const int64_t growth_steps_;
  State state_;
};

}  // namespace penstock::train
