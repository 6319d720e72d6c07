#pragma once
// A schedule as text that people and torch.distributed.pipelining read.
#include <optional>
#include <string>
#include <vector>

#include "plan/schedule.h"

namespace penstock::plan {

// One row per rank, one column per unit of time, every compute action one unit long; all rows equally long, nullopt = idle.
// REQUIRES: compute actions only.
[[nodiscard]] std::vector<std::vector<std::optional<Action>>> time_slots(const Schedule& schedule);

// One line per rank, actions separated by commas. Without communication the columns are time_slots() and an idle slot is an empty
// field; with communication the actions follow each other without idle slots.
[[nodiscard]] std::string to_csv(const Schedule& schedule);

// The same in columns under each other, each line starting with its rank; "." is an idle slot.
[[nodiscard]] std::string to_text(const Schedule& schedule);

}  // namespace penstock::plan
