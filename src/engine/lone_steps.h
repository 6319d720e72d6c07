#pragma once
// Steps for programs that drive stages themselves, without a scheduler: tests and measurements.
#include "engine/page_pool.h"
#include "engine/step_plan.h"

namespace penstock::engine {

// Rows of the sequence in `slot`, which owns pages_each pages of a cache of num_slots · pages_each: those with numbers slot, slot + num_slots, …
// It begins where start is 0.
[[nodiscard]] inline SequenceStep lone_step(int slot, int start, int count, bool samples, int num_slots, int pages_each) {
  SequenceStep step{.slot = slot, .start = start, .count = count, .samples = samples};
  if (start > 0) return step;
  step.begins.emplace();
  step.begins->choice.temperature = 0;
  for (int page = 0; page < pages_each; ++page) step.pages.push_back(page * num_slots + slot);
  return step;
}

}  // namespace penstock::engine
