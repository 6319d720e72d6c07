#pragma once
// What a stage knows of the sequences in its slots, from the plans of all steps so far.
#include <cstdint>
#include <optional>
#include <vector>

#include "engine/step_plan.h"
#include "text/token_masks.h"

namespace penstock::engine {

// Threads: owned by the thread that runs the stage.
class SlotTable {
 public:
  struct Slot {
    std::vector<int32_t> pages;  // of the KV cache, of positions 0 …
    SamplingChoice choice;
    TokenHistory history;
    std::vector<int32_t> completion;  // of before it began here
    std::optional<text::ConstrainedText> constrained;  // on the last stage, since its first sample there, if it has a constraint
  };
  SlotTable(int num_slots, int num_pages) : num_pages_(num_pages), slots_(static_cast<size_t>(num_slots)) {}

  // Takes in a step, before it is computed. Throws Error kInternal for pages that do not exist, or too few of them.
  void apply(const StepPlan& plan);

  [[nodiscard]] const Slot& at(int slot) const { return slots_.at(static_cast<size_t>(slot)); }
  [[nodiscard]] Slot& at(int slot) { return slots_.at(static_cast<size_t>(slot)); }
  // Its sequence goes on with this token.
  void sampled(int slot, int32_t token) { slots_.at(static_cast<size_t>(slot)).history.add(token); }

 private:
  const int num_pages_;
  std::vector<Slot> slots_;
};

}  // namespace penstock::engine
