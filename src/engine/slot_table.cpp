#include "engine/slot_table.h"

#include "base/error.h"
#include "engine/page_pool.h"

namespace penstock::engine {

void SlotTable::apply(const StepPlan& plan) {
  for (const SequenceStep& s : plan.sequences) {
    if (s.slot < 0 || static_cast<size_t>(s.slot) >= pages_.size()) throw error(Code::kInternal, "a step for slot {} of {}", s.slot, pages_.size());
    std::vector<int32_t>& pages = pages_[static_cast<size_t>(s.slot)];
    if (s.begins) pages.clear();
    for (const int32_t page : s.pages) {
      if (page < 0 || page >= num_pages_) throw error(Code::kInternal, "a step with page {} of {}", page, num_pages_);
      pages.push_back(page);
    }
    if (static_cast<size_t>(pages_for(s.start + s.count)) > pages.size()) {
      throw error(Code::kInternal, "a step with positions {}+{} of slot {}, which has {} pages", s.start, s.count, s.slot, pages.size());
    }
  }
}

}  // namespace penstock::engine
