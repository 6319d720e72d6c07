#pragma once
// A schedule as text: the CSV notation of torch.distributed.pipelining, read and written, and columns for people.
#include <string>
#include <string_view>
#include <vector>

#include "plan/schedule.h"

namespace penstock::plan {

inline constexpr size_t kMaxCsvBytes = size_t{64} << 20;  // of a file

// What a rank does in one slot: nothing, one action, or a joined pair.
using Slot = std::vector<Action>;

// One row per rank, one column per unit of time; every compute action, and every joined pair, is one unit long. All rows are equally long.
// Throws Error kInvalidArgument when an action's input is never made. REQUIRES: compute actions only.
[[nodiscard]] std::vector<std::vector<Slot>> time_slots(const Schedule& schedule);

// One line per rank, actions separated by commas: STAGE KIND MICROBATCH, e.g. 0F0, 3I2, or (0F8;7B4)OVERLAP_F_B for a joined pair.
// Without communication the columns are time_slots() and an idle slot is an empty field; with communication the actions follow each other
// without idle slots.
[[nodiscard]] std::string to_csv(const Schedule& schedule);

// The same in columns under each other, each line starting with its rank; "." is an idle slot.
[[nodiscard]] std::string to_text(const Schedule& schedule);

// What to_csv() and torch.distributed.pipelining write, and what people write by hand: one line per rank, blanks around fields and empty
// fields allowed; a rank without an action is not. At most 1024 ranks. Stages, micro-batches and the placement of stages follow from the actions. torch's UNSHARD, RESHARD and REDUCE_GRAD are
// left out: gradients are reduced here when they are complete.
// kInvalidArgument names `source`, line and field for text that is no action, and what check_complete() finds.
[[nodiscard]] Result<Schedule> parse_csv(std::string_view text, const std::string& source);

}  // namespace penstock::plan
