#include "plan/schedule_text.h"

#include <algorithm>
#include <cmath>

#include "plan/simulation.h"

namespace penstock::plan {

namespace {

// Cells to print, "" = idle.
std::vector<std::vector<std::string>> cells(const Schedule& schedule) {
  std::vector<std::vector<std::string>> rows;
  const bool compute_only = std::all_of(schedule.ranks.begin(), schedule.ranks.end(), [](const auto& list) {
    return std::all_of(list.begin(), list.end(), [](const Action& action) { return is_compute(action.kind); });
  });
  if (compute_only) {
    for (const auto& slots : time_slots(schedule)) {
      auto& row = rows.emplace_back();
      for (const auto& action : slots) row.push_back(action ? to_string(*action) : "");
    }
  } else {
    for (const auto& list : schedule.ranks) {
      auto& row = rows.emplace_back();
      for (const Action& action : list) row.push_back(to_string(action));
    }
  }
  return rows;
}

}  // namespace

std::vector<std::vector<std::optional<Action>>> time_slots(const Schedule& schedule) {
  const std::vector<StageCosts> unit(static_cast<size_t>(schedule.num_stages), StageCosts{1, 1, 1, 1});
  const Simulation simulation = simulate(schedule, unit, 0);
  const auto num_slots = static_cast<size_t>(std::lround(simulation.makespan));
  std::vector<std::vector<std::optional<Action>>> rows;
  for (const RankTimeline& rank : simulation.ranks) {
    auto& row = rows.emplace_back(num_slots);
    for (const TimedAction& timed : rank.actions) {
      PENSTOCK_CHECK(is_compute(timed.action.kind), "{} has no slot", to_string(timed.action));
      row[static_cast<size_t>(std::lround(timed.start))] = timed.action;
    }
  }
  return rows;
}

std::string to_csv(const Schedule& schedule) {
  std::string text;
  for (const auto& row : cells(schedule)) text += fmt::format("{}\n", fmt::join(row, ","));
  return text;
}

std::string to_text(const Schedule& schedule) {
  const auto rows = cells(schedule);
  size_t width = 1;
  for (const auto& row : rows) {
    for (const std::string& cell : row) width = std::max(width, cell.size());
  }
  const size_t rank_width = std::to_string(rows.size() - 1).size();
  std::string text;
  for (size_t rank = 0; rank < rows.size(); ++rank) {
    std::string line = fmt::format("rank {:>{}} |", rank, rank_width);
    for (const std::string& cell : rows[rank]) line += fmt::format(" {:<{}}", cell.empty() ? "." : cell, width);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace penstock::plan
