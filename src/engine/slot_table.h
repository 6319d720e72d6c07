#pragma once
// Which pages of the KV cache the sequences in a stage's slots have, from the plans of all steps so far.
#include <cstdint>
#include <span>
#include <vector>

#include "engine/step_plan.h"

namespace penstock::engine {

// Threads: owned by the thread that runs the stage.
class SlotTable {
 public:
  SlotTable(int num_slots, int num_pages) : num_pages_(num_pages), pages_(static_cast<size_t>(num_slots)) {}

  // Takes in a step, before it is computed. Throws Error kInternal for pages that do not exist, or too few of them.
  void apply(const StepPlan& plan);

  // Of positions 0 …; borrowed until the next apply().
  [[nodiscard]] std::span<const int32_t> pages(int slot) const { return pages_.at(static_cast<size_t>(slot)); }

 private:
  const int num_pages_;
  std::vector<std::vector<int32_t>> pages_;  // by slot
};

}  // namespace penstock::engine
