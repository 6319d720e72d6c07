#pragma once
// A pipeline's schedule as data: what each rank does, in which order. Made here, given its sends and receives in lowering.h, proven in
// schedule_check.h, timed in simulation.h, carried out by the executor.
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "plan/action.h"

namespace penstock::plan {

// Each rank carries out its own list in order; nothing else orders the ranks than the messages between them.
struct Schedule {
  std::string name;
  int num_ranks = 0;
  int num_stages = 0;
  int num_microbatches = 0;
  std::vector<int> stage_ranks;  // [num_stages] the rank that holds each stage
  std::vector<std::vector<Action>> ranks;

  [[nodiscard]] int rank_of(int stage) const { return stage_ranks[static_cast<size_t>(stage)]; }
  [[nodiscard]] std::vector<int> stages_of(int rank) const;  // rising
  [[nodiscard]] bool has_communication() const;                // any send or receive
  bool operator==(const Schedule&) const = default;
};

// How stages are dealt out to ranks: round robin, or there and back (rank r holds r and 2p-1-r), so that the first rank also ends.
[[nodiscard]] std::vector<int> loop_placement(int num_ranks, int chunks);
[[nodiscard]] std::vector<int> v_placement(int num_ranks);

struct ScheduleRequest {
  std::string name;
  int num_ranks = 1;         // p, 1 ... 1024
  int num_microbatches = 1;  // m, 1 ... 65536
  int chunks = 0;            // v, stages per rank; 0 = the schedule's own number
};

struct KnownSchedule {
  const char* name;
  const char* summary;  // one line for help texts
  int chunks;           // without a wish
  bool any_chunks;      // false: exactly `chunks`
};
[[nodiscard]] std::span<const KnownSchedule> known_schedules();
[[nodiscard]] std::vector<std::string> schedule_names();

// Compute actions only. Orders are those of torch.distributed.pipelining, action for action.
//
// gpipe             every forward, then every backward, micro-batches rising (Huang et al. 2018). Keeps all m activations.
// 1f1b              rank s runs min(m, p-1-s) forwards ahead, then a forward and a backward by turns, then the backwards that are left
//                   (PipeDream-Flush; Narayanan et al. 2021, section 2.2). Keeps at most min(m, p-s) activations.
// eager-1f1b        the same with min(m, 2(p-1-s)) forwards ahead: hides the time of a hop, keeps up to min(m, 2(p-1-s)+1).
// interleaved-1f1b  1F1B over v stages per rank, round robin; micro-batches go in rounds of g = m / max(1, m/p) through the chunks
//                   (Narayanan et al. 2021, section 2.2). Needs m to be a multiple of the number of rounds.
// looped-bfs        all forwards of the first chunk, then of the next; backwards from the last chunk and micro-batch down (Lamy-Poirier 2022).
// zb-h1             interleaved with input gradients and weight gradients apart: from its s-th backward on a rank lets each input gradient be
//                   followed by the oldest weight gradient (ZB-H1, Qi et al. 2023). Keeps activations as 1F1B does, weight work for p.
// zb-v              v = 2, stages there and back (Qi et al. 2023, section 6). Memory of 1F1B.
// dualpipev         v = 2, stages there and back, forwards and backwards in pairs (DeepSeek's DualPipe, cut in half). Needs m >= 2p.
// forward           every forward: validation and serving.
//
// kInvalidArgument names the field: an unknown name (lists the known ones), a count out of range, more than 4096 stages or four million
// forwards, a number of chunks or micro-batches that the schedule cannot have.
[[nodiscard]] Result<Schedule> make_schedule(const ScheduleRequest& request);

// The forward actions of a schedule in their order, for validation on the same stages.
[[nodiscard]] Schedule forward_part(const Schedule& schedule);

}  // namespace penstock::plan
