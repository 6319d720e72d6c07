#include "plan/replay.h"

#include <algorithm>
#include <map>

#include "plan/simulation.h"

namespace penstock::plan {
namespace {

// What was carried out, as a schedule.
Schedule carried_out(const std::vector<TimelineRow>& rows) {
  Schedule schedule;
  schedule.name = "measured";
  schedule.num_ranks = static_cast<int>(rows.size());
  for (const TimelineRow& row : rows) {
    std::vector<Action>& actions = schedule.ranks.emplace_back();
    for (const TimelineBar& bar : row.bars) {
      schedule.num_stages = std::max(schedule.num_stages, bar.stage + 1);
      schedule.num_microbatches = std::max(schedule.num_microbatches, bar.microbatch + 1);
      actions.push_back({bar.kind, bar.stage, bar.microbatch});
    }
  }
  schedule.stage_ranks.assign(static_cast<size_t>(schedule.num_stages), 0);
  for (size_t rank = 0; rank < rows.size(); ++rank) {
    for (const TimelineBar& bar : rows[rank].bars) schedule.stage_ranks[static_cast<size_t>(bar.stage)] = static_cast<int>(rank);
  }
  return schedule;
}

std::vector<TimelineRow> in_order_of_time(std::vector<TimelineRow> rows) {
  for (TimelineRow& row : rows) std::ranges::stable_sort(row.bars, {}, &TimelineBar::start);
  return rows;
}

}  // namespace

BubbleCauses explain_bubble(const std::vector<TimelineRow>& measured) {
  const std::vector<TimelineRow> rows = in_order_of_time(measured);
  struct Mean {
    double sum = 0;
    int count = 0;
  };
  std::map<ActionKind, Mean> means;
  std::map<std::string, double> own;
  for (const TimelineRow& row : rows) {
    for (const TimelineBar& bar : row.bars) {
      own[to_string(Action{bar.kind, bar.stage, bar.microbatch})] = bar.end - bar.start;
      means[bar.kind].sum += bar.end - bar.start;
      ++means[bar.kind].count;
    }
  }
  const Schedule schedule = carried_out(rows);
  const double even = simulate(schedule, [&](const Action& a) { return means[a.kind].sum / means[a.kind].count; }, 0).bubble_share;
  const double as_long = simulate(schedule, [&](const Action& a) { return own[to_string(a)]; }, 0).bubble_share;
  BubbleCauses causes;
  causes.measured = bubble_share(rows);
  causes.schedule = even;
  causes.uneven = as_long - even;
  causes.waiting = causes.measured - as_long;
  return causes;
}

}  // namespace penstock::plan
