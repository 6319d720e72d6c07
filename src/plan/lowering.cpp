#include "plan/lowering.h"

#include <optional>

#include "plan/action_table.h"

namespace penstock::plan {

namespace {

// Note [One global order]
// Walk over the ranks, again and again, each time moving at most one action (or one joined pair) from the head of each rank's compute
// list to its result. It moves when its inputs exist: it is the first stage, or its receive (or the producer, on the same rank) already
// stands in this rank's result. When what it made is for another rank, its send is appended here and the receive is appended there, in
// the same moment; a rank never places its own receives.
// The order of these moments is one order of the whole plan, and every rank's list follows it. Carried out in that order, every
// send finds its receive at the head of the peer's list, so not even a rendezvous per message can get stuck.
class Lowering {
 public:
  explicit Lowering(const Schedule& compute) : compute_(compute), result_(compute), next_(compute.ranks.size(), 0), placed_(compute, false) {
    for (auto& list : result_.ranks) list.clear();
    for (const auto& list : compute.ranks) {
      for (const Action& action : list) PENSTOCK_CHECK(is_compute(action.kind), "{} already has {}", compute.name, to_string(action));
    }
  }

  Schedule run() {
    while (!finished()) {
      bool moved = false;
      for (size_t rank = 0; rank < next_.size(); ++rank) moved = advance(rank) || moved;
      if (!moved) throw error(Code::kInvalidArgument, "schedule {} cannot be carried out: {}", compute_.name, stuck());
    }
    return std::move(result_);
  }

 private:
  [[nodiscard]] bool finished() const {
    for (size_t rank = 0; rank < next_.size(); ++rank) {
      if (next_[rank] < compute_.ranks[rank].size()) return false;
    }
    return true;
  }

  // The actions that move together: one, or a joined pair.
  [[nodiscard]] std::span<const Action> head(size_t rank) const {
    const std::span<const Action> rest = std::span(compute_.ranks[rank]).subspan(next_[rank]);
    return rest.first(rest.size() > 1 && rest.front().joined ? 2 : std::min<size_t>(rest.size(), 1));
  }

  bool advance(size_t rank) {
    const std::span<const Action> actions = head(rank);
    if (actions.empty()) return false;
    for (const Action& action : actions) {
      if (!ready(action)) return false;
    }
    for (const Action& action : actions) place(rank, action);
    for (const Action& action : actions) {
      const auto send = send_after(action);
      if (!send) continue;
      const Action recv = counterpart(*send);
      place(rank, *send);
      place(static_cast<size_t>(compute_.rank_of(recv.stage)), recv);
    }
    next_[rank] += actions.size();
    return true;
  }

  void place(size_t rank, const Action& action) {
    result_.ranks[rank].push_back(action);
    placed_[action] = true;
  }

  // An action of stage s stands on the rank of s, so what was placed for s was placed on this rank.
  [[nodiscard]] bool ready(const Action& action) const {
    const int stage = action.stage;
    const auto has = [&](ActionKind kind, int of) { return placed_[{kind, of, action.microbatch}]; };
    const auto here = [&](int other) { return compute_.rank_of(other) == compute_.rank_of(stage); };
    if (action.kind == ActionKind::kForward) {
      return stage == 0 || (here(stage - 1) ? has(ActionKind::kForward, stage - 1) : has(ActionKind::kRecvForward, stage));
    }
    if (!makes_input_grad(action.kind) || stage == compute_.num_stages - 1) return true;
    if (!here(stage + 1)) return has(ActionKind::kRecvBackward, stage);
    return has(ActionKind::kBackward, stage + 1) || has(ActionKind::kInputGrad, stage + 1);
  }

  [[nodiscard]] std::optional<Action> send_after(const Action& action) const {
    Action send{ActionKind::kSendForward, action.stage, action.microbatch};
    if (action.kind == ActionKind::kForward) {
      if (action.stage == compute_.num_stages - 1) return std::nullopt;
    } else if (makes_input_grad(action.kind) && action.stage > 0) {
      send.kind = ActionKind::kSendBackward;
    } else {
      return std::nullopt;
    }
    if (compute_.rank_of(peer_stage(send)) == compute_.rank_of(action.stage)) return std::nullopt;
    return send;
  }

  [[nodiscard]] std::string stuck() const {
    std::string text;
    for (size_t rank = 0; rank < next_.size(); ++rank) {
      for (const Action& action : head(rank)) {
        if (ready(action)) continue;
        text += fmt::format("{}rank {} stands at {}, whose input nobody has made", text.empty() ? "" : "; ", rank, to_string(action));
      }
    }
    return text;
  }

  const Schedule& compute_;
  Schedule result_;
  std::vector<size_t> next_;  // per rank: the compute action to place next
  ActionTable<char> placed_;  // in the result
};

}  // namespace

Schedule with_communication(const Schedule& compute) { return Lowering(compute).run(); }

}  // namespace penstock::plan
