#pragma once
// From what ranks compute to what they also send and receive.
#include "plan/schedule.h"

namespace penstock::plan {

// The same plan with its sends and receives. Stages on one rank hand over in memory and get none.
// A send and its receive enter the two lists at the same moment, so all lists agree with one global order:
// the result completes even when every send waits for its receive. Note [One global order] in lowering.cpp.
// The order is that of torch.distributed.pipelining's lowering.
// Throws Error kInvalidArgument, naming each stuck rank's next action, when no order of the lists can be carried out.
// REQUIRES: compute actions only.
[[nodiscard]] Schedule with_communication(const Schedule& compute);

}  // namespace penstock::plan
