#pragma once
// All ranks of a job were started with the same settings, or all refuse to begin.
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "comm/communicator.h"

namespace penstock::comm {

using Settings = std::vector<std::pair<std::string, std::string>>;  // name and value

// Collective over `world`, to be called before anything else. Compares each rank's settings with rank 0's. Throws Error kInvalidArgument on every
// rank, with the same words: "rank 2 differs from rank 0: optimizer.lr is 0.002, on rank 0 0.001; ..."
// Names that only one of the two has count as different. At most a MiB of settings.
void require_same_settings(Communicator& world, const Settings& settings, Deadline deadline);

}  // namespace penstock::comm
