#pragma once
// Whether a step's gradients may be trusted: decided from numbers that all ranks have alike, so all decide alike.
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "config/train_config.h"

namespace penstock::train {

// Steps whose loss or gradient is not finite, and, when configured, whose loss stands out of those before it, as llm.c does: by more than `loss_spike`
// standard deviations over the mean of the last kWindow accepted losses.
//
// Threads: one.
class StepGuard {
 public:
  static constexpr size_t kWindow = 128;

  explicit StepGuard(const config::BadStepConfig& config) : config_(config) {}

  enum class Verdict { kTake, kSkip, kStop };
  struct Judgement {
    Verdict verdict = Verdict::kTake;
    std::string reason;  // "a loss of 9.1 is 8.3 standard deviations over the mean 2.0 of the last 128"; empty when it is that numbers are not finite
  };
  // `loss`: nats per token. Remembers it when it is taken.
  [[nodiscard]] Judgement judge(double loss, bool finite);

  // What a checkpoint keeps, so that a resumed run decides as an uninterrupted one.
  struct State {
    std::vector<double> losses;  // accepted, oldest first
    int64_t skipped = 0;         // steps in all
    int64_t in_a_row = 0;
  };
  [[nodiscard]] State state() const { return {{losses_.begin(), losses_.end()}, skipped_, in_a_row_}; }
  void restore(const State& state);
  [[nodiscard]] int64_t skipped() const { return skipped_; }

 private:
  [[nodiscard]] double deviations(double loss) const;  // over the mean; 0 while the window is not full

  const config::BadStepConfig config_;
  std::deque<double> losses_;
  int64_t skipped_ = 0, in_a_row_ = 0;
};

}  // namespace penstock::train
