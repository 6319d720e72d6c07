#pragma once
// A schedule as a picture for a talk: one row per rank, planned or measured.
#include <optional>
#include <string>
#include <vector>

#include "plan/action.h"
#include "plan/simulation.h"

namespace penstock::plan {

struct TimelineBar {
  ActionKind kind = ActionKind::kForward;
  int stage = 0;
  int microbatch = 0;
  double start = 0;
  double end = 0;
};

struct TimelineRow {
  std::string name;  // "rank 0"
  std::vector<TimelineBar> bars;
};

struct TimelinePicture {
  std::string title;     // "1f1b, 4 ranks, 8 micro-batches: bubble 27.3 %"
  std::string subtitle;  // may be empty
  std::string unit;      // of time, for the axis
  int num_ranks = 1;     // stages s, s+p … of a rank get lighter shades
  std::vector<TimelineRow> rows;
};

// Forward, backward, input gradient and weight gradient have a colour each, idle time is hatched, bars that are wide enough show their
// micro-batch. At most 20,000 bars are drawn; beyond it Error kInvalidArgument. The same input gives the same bytes.
[[nodiscard]] Result<std::string> timeline_svg(const TimelinePicture& picture);

// The simulated course of a schedule.
[[nodiscard]] TimelinePicture picture_of(const Schedule& schedule, const Simulation& simulation);

// Idle time between the first start and the last end / (rows · that span).
[[nodiscard]] double bubble_share(const std::vector<TimelineRow>& rows);

}  // namespace penstock::plan
