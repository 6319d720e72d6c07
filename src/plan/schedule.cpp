#include "plan/schedule.h"

#include <algorithm>
#include <array>

#include "base/shown.h"
#include "plan/schedule_makers.h"

namespace penstock::plan {

namespace {

constexpr int kMaxRanks = 1024;
constexpr int kMaxMicrobatches = 65536;
constexpr int kMaxStages = 4096;
constexpr int64_t kMaxActions = 4'000'000;

enum class Placement { kLoop, kV };

struct Maker {
  KnownSchedule known;
  Placement placement;
  ActionList (*list)(const ScheduleShape& shape, int rank);
  std::string (*problem)(const ScheduleShape& shape);  // null: fits every shape
};

constexpr std::array<Maker, 9> kMakers = {{
    {{"gpipe", "all forwards, then all backwards", 1, false}, Placement::kLoop, gpipe_list, nullptr},
    {{"1f1b", "one forward, one backward by turns: least memory", 1, false}, Placement::kLoop, one_f_one_b_list, nullptr},
    {{"eager-1f1b", "1f1b with twice the forwards ahead: for slow links", 1, false}, Placement::kLoop, eager_one_f_one_b_list, nullptr},
    {{"interleaved-1f1b", "1f1b over several chunks a rank: smaller bubble", 2, true}, Placement::kLoop, interleaved_one_f_one_b_list,
     rounds_problem},
    {{"looped-bfs", "all forwards chunk by chunk, then all backwards", 2, true}, Placement::kLoop, looped_bfs_list, nullptr},
    {{"zb-h1", "weight gradients fill the bubble: a third of it is left", 1, true}, Placement::kLoop, zb_h1_list, rounds_problem},
    {{"zb-v", "weight gradients fill the bubble, stages there and back", 2, false}, Placement::kV, zb_v_list, nullptr},
    {{"dualpipev", "forwards and backwards in pairs, stages there and back", 2, false}, Placement::kV, dualpipev_list, dualpipev_problem},
    {{"forward", "forwards only: validation and serving", 1, true}, Placement::kLoop, forward_list, nullptr},
}};

Result<const Maker*> find_maker(std::string_view name) {
  const auto found = std::find_if(kMakers.begin(), kMakers.end(), [&](const Maker& m) { return name == m.known.name; });
  if (found != kMakers.end()) return &*found;
  return error(Code::kInvalidArgument, "schedule: no schedule is called '{}'; expected one of {}", shown(name), fmt::join(schedule_names(), ", "));
}

// Empty when the shape is one that `maker` can have.
std::string shape_problem(const Maker& maker, const ScheduleShape& shape) {
  if (shape.ranks < 1 || shape.ranks > kMaxRanks) return fmt::format("ranks: expected 1 to {}, found {}", kMaxRanks, shape.ranks);
  if (shape.microbatches < 1 || shape.microbatches > kMaxMicrobatches) {
    return fmt::format("microbatches: expected 1 to {}, found {}", kMaxMicrobatches, shape.microbatches);
  }
  if (!maker.known.any_chunks && shape.chunks != maker.known.chunks) {
    return fmt::format("chunks: {} has {} for each rank, found {}", maker.known.name, maker.known.chunks, shape.chunks);
  }
  if (shape.chunks < 1 || shape.chunks > kMaxStages / shape.ranks) {
    return fmt::format("chunks: expected 1 to {} for {} ranks, found {}", kMaxStages / shape.ranks, shape.ranks, shape.chunks);
  }
  const int64_t cells = int64_t{shape.ranks} * shape.chunks * shape.microbatches;
  if (cells > kMaxActions) {
    return fmt::format("microbatches: {} on {} stages are {} forwards; expected at most {}", shape.microbatches, shape.ranks * shape.chunks, cells,
                       kMaxActions);
  }
  return maker.problem != nullptr ? maker.problem(shape) : "";
}

}  // namespace

std::vector<int> Schedule::stages_of(int rank) const {
  std::vector<int> stages;
  for (int stage = 0; stage < num_stages; ++stage) {
    if (rank_of(stage) == rank) stages.push_back(stage);
  }
  return stages;
}

bool Schedule::has_communication() const {
  return std::ranges::any_of(ranks, [](const auto& list) { return std::ranges::any_of(list, [](const Action& a) { return !is_compute(a.kind); }); });
}

std::vector<int> loop_placement(int num_ranks, int chunks) {
  std::vector<int> ranks;
  for (int stage = 0; stage < num_ranks * chunks; ++stage) ranks.push_back(stage % num_ranks);
  return ranks;
}

std::vector<int> v_placement(int num_ranks) {
  std::vector<int> ranks;
  for (int stage = 0; stage < 2 * num_ranks; ++stage) ranks.push_back(std::min(stage, 2 * num_ranks - 1 - stage));
  return ranks;
}

std::span<const KnownSchedule> known_schedules() {
  static const std::vector<KnownSchedule> known = [] {
    std::vector<KnownSchedule> all;
    for (const Maker& maker : kMakers) all.push_back(maker.known);
    return all;
  }();
  return known;
}

std::vector<std::string> schedule_names() {
  std::vector<std::string> names;
  for (const KnownSchedule& known : known_schedules()) names.emplace_back(known.name);
  return names;
}

Result<Schedule> make_schedule(const ScheduleRequest& request) {
  const auto found = find_maker(request.name);
  if (!found) return found.error();
  const Maker& maker = *found.value();
  const ScheduleShape shape{request.num_ranks, request.num_microbatches, request.chunks == 0 ? maker.known.chunks : request.chunks};
  if (const std::string problem = shape_problem(maker, shape); !problem.empty()) return error(Code::kInvalidArgument, "{}", problem);

  Schedule schedule{maker.known.name, shape.ranks, shape.ranks * shape.chunks, shape.microbatches, {}, {}};
  schedule.stage_ranks = maker.placement == Placement::kV ? v_placement(shape.ranks) : loop_placement(shape.ranks, shape.chunks);
  for (int rank = 0; rank < shape.ranks; ++rank) schedule.ranks.push_back(maker.list(shape, rank));
  return schedule;
}

Schedule forward_part(const Schedule& schedule) {
  Schedule forwards = schedule;
  forwards.name = "forward of " + schedule.name;
  for (auto& list : forwards.ranks) {
    std::erase_if(list, [](const Action& action) { return action.kind != ActionKind::kForward; });
    for (Action& action : list) action.joined = false;
  }
  return forwards;
}

}  // namespace penstock::plan
