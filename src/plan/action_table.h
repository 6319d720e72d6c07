#pragma once
// A value for each action that a schedule can have, found without searching.
#include <vector>

#include "base/error.h"
#include "plan/schedule.h"

namespace penstock::plan {

inline constexpr int kNumActionKinds = 8;

template <typename T>
class ActionTable {
 public:
  ActionTable(const Schedule& schedule, T initial)
      : stages_(static_cast<size_t>(schedule.num_stages)),
        microbatches_(static_cast<size_t>(schedule.num_microbatches)),
        values_(kNumActionKinds * stages_ * microbatches_, initial) {}

  // REQUIRES: stage and micro-batch within the schedule's counts.
  T& operator[](const Action& action) { return values_[index(action)]; }
  const T& operator[](const Action& action) const { return values_[index(action)]; }

 private:
  [[nodiscard]] size_t index(const Action& action) const {
    const auto stage = static_cast<size_t>(action.stage), microbatch = static_cast<size_t>(action.microbatch);
    PENSTOCK_CHECK(stage < stages_ && microbatch < microbatches_, "{} of {} stages and {} micro-batches", to_string(action), stages_, microbatches_);
    return (static_cast<size_t>(action.kind) * stages_ + stage) * microbatches_ + microbatch;
  }

  size_t stages_, microbatches_;
  std::vector<T> values_;
};

}  // namespace penstock::plan
