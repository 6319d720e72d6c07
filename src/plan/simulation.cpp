#include "plan/simulation.h"

#include <algorithm>
#include <optional>

#include "plan/action_table.h"

namespace penstock::plan {

namespace {

constexpr double kNotMade = -1;

double cost_of(const Action& action, const StageCosts& stage) {
  switch (action.kind) {
    case ActionKind::kForward: return stage.forward;
    case ActionKind::kBackward: return stage.backward;
    case ActionKind::kInputGrad: return stage.input_grad;
    case ActionKind::kWeightGrad: return stage.weight_grad;
    default: return 0.0;
  }
}

class Simulator {
 public:
  Simulator(const Schedule& schedule, const ActionCost& cost, double hop_latency)
      : schedule_(schedule), cost_(cost), hop_latency_(hop_latency), at_(schedule.ranks.size(), 0), clock_(schedule.ranks.size(), 0.0), made_(schedule, kNotMade) {
    result_.ranks.resize(schedule.ranks.size());
  }

  // Every rank goes on as far as its inputs allow, round after round. The times do not depend on the order of these visits:
  // an action starts when its rank is free and its input is there.
  Simulation run() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t rank = 0; rank < at_.size(); ++rank) {
        while (at_[rank] < schedule_.ranks[rank].size() && step(rank)) moved = true;
      }
    }
    for (size_t rank = 0; rank < at_.size(); ++rank) {
      if (at_[rank] == schedule_.ranks[rank].size()) continue;
      throw error(Code::kInvalidArgument, "schedule {}: rank {} stands at {}, whose input nobody has made", schedule_.name, rank,
                  to_string(schedule_.ranks[rank][at_[rank]]));
    }
    finish();
    return std::move(result_);
  }

 private:
  bool step(size_t rank) {
    const Action& action = schedule_.ranks[rank][at_[rank]];
    const std::optional<double> input = input_time(action);
    if (!input) return false;
    TimedAction timed{action, clock_[rank], clock_[rank]};
    if (is_recv(action.kind)) {
      timed.end = std::max(timed.start, *input);
    } else if (is_compute(action.kind)) {
      timed.start = std::max(clock_[rank], *input);
      timed.end = timed.start + cost_(action);
      clock_[rank] = timed.end;
      made_[action] = timed.end + cost_of_joined(rank, action);
    }
    result_.ranks[rank].actions.push_back(timed);
    ++at_[rank];
    return true;
  }

  // The sends of a joined pair stand behind both: what its forward made leaves when its backward is done.
  [[nodiscard]] double cost_of_joined(size_t rank, const Action& action) const {
    return action.joined ? cost_(schedule_.ranks[rank][at_[rank] + 1]) : 0;
  }

  // When the action's input is on its rank; nullopt while it has not been made.
  [[nodiscard]] std::optional<double> input_time(const Action& action) const {
    const int stage = action.stage;
    switch (action.kind) {
      case ActionKind::kForward:
      case ActionKind::kRecvForward:
        if (stage == 0) return 0.0;
        return arrival(stage, {{ActionKind::kForward, stage - 1, action.microbatch}});
      case ActionKind::kBackward:
      case ActionKind::kInputGrad:
      case ActionKind::kRecvBackward:
        if (stage == schedule_.num_stages - 1) return 0.0;
        return arrival(stage, {{ActionKind::kBackward, stage + 1, action.microbatch}, {ActionKind::kInputGrad, stage + 1, action.microbatch}});
      default: return 0.0;
    }
  }

  // When what one of `producers` (all of one stage) has made reaches `stage`.
  [[nodiscard]] std::optional<double> arrival(int stage, std::initializer_list<Action> producers) const {
    for (const Action& producer : producers) {
      const double made = made_[producer];
      if (made == kNotMade) continue;
      const bool same_rank = schedule_.rank_of(producer.stage) == schedule_.rank_of(stage);
      return made + (same_rank ? 0.0 : hop_latency_);
    }
    return std::nullopt;
  }

  void finish() {
    for (const double end : clock_) result_.makespan = std::max(result_.makespan, end);
    double idle = 0;
    for (RankTimeline& rank : result_.ranks) {
      int live = 0, kept = 0;
      for (const TimedAction& timed : rank.actions) {
        const ActionKind kind = timed.action.kind;
        if (is_compute(kind)) rank.busy += timed.end - timed.start;
        if (kind == ActionKind::kForward) {
          rank.peak_live_activations = std::max(rank.peak_live_activations, ++live);
          rank.peak_kept_for_weights = std::max(rank.peak_kept_for_weights, ++kept);
        }
        if (makes_input_grad(kind)) --live;
        if (makes_weight_grad(kind)) --kept;
      }
      rank.idle = result_.makespan - rank.busy;
      idle += rank.idle;
    }
    if (result_.makespan > 0) result_.bubble_share = idle / (static_cast<double>(result_.ranks.size()) * result_.makespan);
  }

  const Schedule& schedule_;
  const ActionCost& cost_;
  const double hop_latency_;
  Simulation result_;
  std::vector<size_t> at_;         // per rank: the action it stands at
  std::vector<double> clock_;      // per rank: when it is free
  ActionTable<double> made_;       // end of each compute action
};

}  // namespace

Simulation simulate(const Schedule& schedule, std::span<const StageCosts> costs, double hop_latency) {
  PENSTOCK_CHECK(costs.size() == static_cast<size_t>(schedule.num_stages), "{} costs for {} stages", costs.size(), schedule.num_stages);
  return simulate(schedule, [&](const Action& action) { return cost_of(action, costs[static_cast<size_t>(action.stage)]); }, hop_latency);
}

Simulation simulate(const Schedule& schedule, const ActionCost& cost, double hop_latency) { return Simulator(schedule, cost, hop_latency).run(); }

std::optional<double> bubble_formula(const Schedule& schedule, const StageCosts& costs) {
  const double fill = schedule.num_ranks - 1;
  const double chunks = static_cast<double>(schedule.num_stages) / schedule.num_ranks;
  const double work = schedule.num_microbatches * chunks;
  const std::string& name = schedule.name;
  if (name == "zb-h1") {
    const double idle = fill * (costs.forward + costs.input_grad - costs.weight_grad);
    return idle / (work * (costs.forward + costs.input_grad + costs.weight_grad) + idle);
  }
  if (name == "zb-v" || name == "dualpipev" || std::ranges::count(schedule_names(), name) == 0) return std::nullopt;
  return fill / (work + fill);
}

}  // namespace penstock::plan
