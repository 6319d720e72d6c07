#pragma once
// A pipeline's schedule as data: what each rank does, in which order. Made here, proven in schedule_check.h, carried out by the executor.
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "plan/action.h"

namespace penstock::plan {

// Each rank carries out its own list in order; nothing else orders the ranks than the messages between them.
// Stages are dealt out round robin, so a rank holds num_stages / num_ranks stages ("chunks").
struct Schedule {
  std::string name;
  int num_ranks = 0;
  int num_stages = 0;  // a multiple of num_ranks
  int num_microbatches = 0;
  std::vector<std::vector<Action>> ranks;

  [[nodiscard]] int rank_of(int stage) const { return stage % num_ranks; }
  bool operator==(const Schedule&) const = default;
};

// Compute actions only, one stage a rank. REQUIRES: both counts >= 1.
//
// gpipe         every forward, then every backward, micro-batches ascending. Keeps all m activations.
// one_f_one_b   rank s runs min(m, p-1-s) forwards ahead, then one forward and one backward by turns, then the backwards
//               that are left. Keeps at most min(m, p-s) activations. (PipeDream-Flush; Narayanan et al. 2021, section 2.2.)
// forward_only  every forward: validation and serving.
[[nodiscard]] Schedule gpipe(int num_ranks, int num_microbatches);
[[nodiscard]] Schedule one_f_one_b(int num_ranks, int num_microbatches);
[[nodiscard]] Schedule forward_only(int num_ranks, int num_microbatches);

// By the name that configurations and the command line use. kInvalidArgument names the field: an unknown name
// (lists the known ones), or a count outside 1 ... 1024 ranks, 1 ... 65536 micro-batches.
[[nodiscard]] Result<Schedule> schedule_by_name(std::string_view name, int num_ranks, int num_microbatches);
[[nodiscard]] const std::vector<std::string>& schedule_names();

// The same plan with its sends and receives. Stages on one rank hand over in memory and get none.
// A send and its receive enter the two lists at the same moment, so all lists agree with one global order:
// the result completes even when every send waits for its receive. Note [One global order] in schedule.cpp.
// Throws Error kInvalidArgument, naming each stuck rank's next action, when no order of the lists can be carried out.
// REQUIRES: compute actions only.
[[nodiscard]] Schedule with_communication(const Schedule& compute);

}  // namespace penstock::plan
