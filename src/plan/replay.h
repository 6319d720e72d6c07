#pragma once
// Why a measured step idled as much as it did.
#include <vector>

#include "plan/timeline_svg.h"

namespace penstock::plan {

// Shares of ranks × time; the first is the sum of the other three, up to rounding.
struct BubbleCauses {
  double measured = 0;
  double schedule = 0;  // the order of actions, were all of a kind equally long everywhere
  double uneven = 0;    // that they were not: unequal stages, a core that was slow for a while (negative where it happened to help)
  double waiting = 0;   // messages on their way and the executor's own time: what is left
};

// Runs the rows' actions again in a simulation: once with their mean times and once with their own, messages taking no time.
// `rows`: the ranks of one pipeline in one step; every stage's forwards and backwards are in them. Throws Error kInvalidArgument when an action's
// input is made by none of them.
[[nodiscard]] BubbleCauses explain_bubble(const std::vector<TimelineRow>& rows);

}  // namespace penstock::plan
