// Schedules of one stage a rank.
#include <algorithm>

#include "plan/schedule_makers.h"

namespace penstock::plan {

namespace {

// `ahead` forwards, then one forward and one backward by turns, then the backwards that are left.
ActionList alternating(int stage, int num_microbatches, int ahead) {
  ActionList list;
  for (int mb = 0; mb < ahead; ++mb) list.push_back({ActionKind::kForward, stage, mb});
  for (int mb = ahead; mb < num_microbatches; ++mb) {
    list.push_back({ActionKind::kForward, stage, mb});
    list.push_back({ActionKind::kBackward, stage, mb - ahead});
  }
  for (int mb = num_microbatches - ahead; mb < num_microbatches; ++mb) list.push_back({ActionKind::kBackward, stage, mb});
  return list;
}

}  // namespace

ActionList gpipe_list(const ScheduleShape& shape, int rank) { return alternating(rank, shape.microbatches, shape.microbatches); }

ActionList one_f_one_b_list(const ScheduleShape& shape, int rank) {
  return alternating(rank, shape.microbatches, std::min(shape.microbatches, shape.ranks - 1 - rank));
}

ActionList eager_one_f_one_b_list(const ScheduleShape& shape, int rank) {
  return alternating(rank, shape.microbatches, std::min(shape.microbatches, 2 * (shape.ranks - 1 - rank)));
}

}  // namespace penstock::plan
