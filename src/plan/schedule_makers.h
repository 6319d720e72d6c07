#pragma once
// One function per schedule: the list of one rank. Private to src/plan; schedule.h is the door, and checks the arguments.
#include <vector>

#include "plan/action.h"

namespace penstock::plan {

using ActionList = std::vector<Action>;

struct ScheduleShape {
  int ranks = 1;         // p
  int microbatches = 1;  // m
  int chunks = 1;        // v
};

// schedule_single.cpp: one stage a rank.
[[nodiscard]] ActionList gpipe_list(const ScheduleShape& shape, int rank);
[[nodiscard]] ActionList one_f_one_b_list(const ScheduleShape& shape, int rank);
[[nodiscard]] ActionList eager_one_f_one_b_list(const ScheduleShape& shape, int rank);

// schedule_looped.cpp: chunks round robin.
[[nodiscard]] ActionList forward_list(const ScheduleShape& shape, int rank);
[[nodiscard]] ActionList looped_bfs_list(const ScheduleShape& shape, int rank);
[[nodiscard]] ActionList interleaved_one_f_one_b_list(const ScheduleShape& shape, int rank);
[[nodiscard]] ActionList zb_h1_list(const ScheduleShape& shape, int rank);

// schedule_v.cpp: two chunks, there and back.
[[nodiscard]] ActionList zb_v_list(const ScheduleShape& shape, int rank);
[[nodiscard]] ActionList dualpipev_list(const ScheduleShape& shape, int rank);

// What does not fit; empty when all is well.
[[nodiscard]] std::string rounds_problem(const ScheduleShape& shape);     // m must be a multiple of the number of rounds
[[nodiscard]] std::string dualpipev_problem(const ScheduleShape& shape);  // m >= 2p

}  // namespace penstock::plan
