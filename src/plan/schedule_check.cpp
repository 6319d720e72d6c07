#include "plan/schedule_check.h"

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "plan/action_table.h"
#include "plan/lowering.h"

namespace penstock::plan {

namespace {

// Every rank steps through its list as far as it can, round after round, until all have ended or none moves.
class DeadlockFinder {
 public:
  DeadlockFinder(const Schedule& schedule, int link_capacity)
      : schedule_(schedule), capacity_(static_cast<size_t>(link_capacity)), at_(schedule.ranks.size(), 0) {}

  std::optional<std::string> run() {
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t rank = 0; rank < at_.size(); ++rank) {
        while (!ended(rank) && step(rank)) moved = true;
      }
    }
    std::string stuck;
    for (size_t rank = 0; rank < at_.size(); ++rank) {
      if (!ended(rank)) stuck += fmt::format("{}{}", stuck.empty() ? "" : "; ", explain(rank));
    }
    if (stuck.empty()) return std::nullopt;
    return fmt::format("schedule {} gets stuck with links that hold {} messages: {}", schedule_.name, capacity_, stuck);
  }

 private:
  [[nodiscard]] bool ended(size_t rank) const { return at_[rank] >= schedule_.ranks[rank].size(); }
  [[nodiscard]] const Action& head(size_t rank) const { return schedule_.ranks[rank][at_[rank]]; }
  [[nodiscard]] std::deque<Action>& link_between(size_t from, size_t to) { return links_[{from, to}]; }
  [[nodiscard]] size_t peer_of(const Action& action) const { return static_cast<size_t>(schedule_.rank_of(peer_stage(action))); }

  bool step(size_t rank) {
    const Action& action = head(rank);
    if (is_send(action.kind)) return step_send(rank, action);
    if (is_recv(action.kind)) return step_recv(rank, action);
    ++at_[rank];
    return true;
  }

  bool step_send(size_t rank, const Action& send) {
    const size_t peer = peer_of(send);
    auto& link = link_between(rank, peer);
    if (capacity_ == 0) {  // both ends move together
      if (ended(peer) || head(peer) != counterpart(send)) return false;
      ++at_[peer];
    } else {
      if (link.size() >= capacity_) return false;
      link.push_back(send);
    }
    ++at_[rank];
    return true;
  }

  bool step_recv(size_t rank, const Action& recv) {
    auto& link = link_between(peer_of(recv), rank);
    if (link.empty() || link.front() != counterpart(recv)) return false;  // a rendezvous is carried out by its send
    link.pop_front();
    ++at_[rank];
    return true;
  }

  [[nodiscard]] std::string explain(size_t rank) {
    const Action& action = head(rank);
    const size_t peer = peer_of(action);
    const std::string place = fmt::format("rank {} stands at {} (action {} of {})", rank, to_string(action), at_[rank] + 1,
                                          schedule_.ranks[rank].size());
    const std::string partner = to_string(counterpart(action));
    if (is_send(action.kind)) {
      if (capacity_ == 0) return fmt::format("{} and waits for rank {} to reach {}", place, peer, partner);
      return fmt::format("{} and waits for room in its full link to rank {}", place, peer);
    }
    const auto& link = link_between(peer, rank);
    if (!link.empty()) {
      return fmt::format("{} and waits for {}, but the next message from rank {} is {}", place, partner, peer, to_string(link.front()));
    }
    if (ended(peer)) return fmt::format("{} and waits for {}, but rank {} has ended", place, partner, peer);
    return fmt::format("{} and waits for rank {} to reach {}", place, peer, partner);
  }

  const Schedule& schedule_;
  const size_t capacity_;
  std::vector<size_t> at_;                 // per rank: the action it stands at
  std::map<std::pair<size_t, size_t>, std::deque<Action>> links_;  // by (from, to): sent and not yet received
};

constexpr int64_t kAbsent = -1;

class CompletenessCheck {
 public:
  explicit CompletenessCheck(const Schedule& schedule) : schedule_(schedule) {}

  std::optional<std::string> run() {
    if (auto problem = check_frame()) return problem;
    position_.emplace(schedule_, kAbsent);
    if (auto problem = index()) return problem;
    for (int stage = 0; stage < schedule_.num_stages; ++stage) {
      for (int mb = 0; mb < schedule_.num_microbatches; ++mb) {
        if (auto problem = check_compute(stage, mb)) return problem;
        if (!has_communication_) continue;
        if (auto problem = check_messages(stage, mb)) return problem;
      }
    }
    return std::nullopt;
  }

 private:
  std::optional<std::string> check_frame() const {
    if (schedule_.num_ranks < 1 || schedule_.ranks.size() != static_cast<size_t>(schedule_.num_ranks)) {
      return fmt::format("schedule {} has {} lists for {} ranks", schedule_.name, schedule_.ranks.size(), schedule_.num_ranks);
    }
    if (schedule_.num_stages < 1 || schedule_.stage_ranks.size() != static_cast<size_t>(schedule_.num_stages)) {
      return fmt::format("schedule {} places {} stages of {}", schedule_.name, schedule_.stage_ranks.size(), schedule_.num_stages);
    }
    for (int stage = 0; stage < schedule_.num_stages; ++stage) {
      const int rank = schedule_.rank_of(stage);
      if (rank < 0 || rank >= schedule_.num_ranks) return fmt::format("stage {} is on rank {} of {}", stage, rank, schedule_.num_ranks);
    }
    return std::nullopt;
  }

  // Notes where each action stands; refuses what is out of range, on the wrong rank, there twice, or joined to something else.
  std::optional<std::string> index() {
    for (int rank = 0; rank < schedule_.num_ranks; ++rank) {
      const auto& list = schedule_.ranks[static_cast<size_t>(rank)];
      for (size_t position = 0; position < list.size(); ++position) {
        const Action& action = list[position];
        if (action.stage < 0 || action.stage >= schedule_.num_stages || action.microbatch < 0 ||
            action.microbatch >= schedule_.num_microbatches) {
          return fmt::format("rank {} has {}, but there are {} stages and {} micro-batches", rank, to_string(action),
                             schedule_.num_stages, schedule_.num_microbatches);
        }
        if (schedule_.rank_of(action.stage) != rank) {
          return fmt::format("rank {} has {}, but stage {} is on rank {}", rank, to_string(action), action.stage,
                             schedule_.rank_of(action.stage));
        }
        if (!is_compute(action.kind)) {
          const int peer = peer_stage(action);
          if (peer < 0 || peer >= schedule_.num_stages || schedule_.rank_of(peer) == rank) {
            return fmt::format("rank {} has {}, but stage {} has no neighbour on another rank there", rank, to_string(action), action.stage);
          }
        }
        if (has(action)) return fmt::format("rank {} has {} twice", rank, to_string(action));
        if (action.joined && (action.kind != ActionKind::kForward || position + 1 == list.size() || list[position + 1].kind != ActionKind::kBackward)) {
          return fmt::format("rank {} has {} in a pair; expected a forward and a backward behind it", rank, to_string(action));
        }
        (*position_)[action] = static_cast<int64_t>(position);
        has_communication_ = has_communication_ || !is_compute(action.kind);
        has_backward_ = has_backward_ || makes_input_grad(action.kind) || makes_weight_grad(action.kind);
      }
    }
    return std::nullopt;
  }

  std::optional<std::string> check_compute(int stage, int mb) const {
    const Action forward{ActionKind::kForward, stage, mb};
    const Action whole{ActionKind::kBackward, stage, mb};
    const Action input{ActionKind::kInputGrad, stage, mb};
    const Action weight{ActionKind::kWeightGrad, stage, mb};
    if (!has(forward)) return missing(forward);
    if (!has_backward_) return std::nullopt;
    if (has(whole)) {
      if (has(input) || has(weight)) return fmt::format("{} is there as a whole and in parts", to_string(whole));
      return in_order(forward, whole);
    }
    if (!has(input) && !has(weight)) return missing(whole);
    if (!has(input)) return missing(input);
    if (!has(weight)) return missing(weight);
    if (auto problem = in_order(forward, input)) return problem;
    return in_order(input, weight);
  }

  // The activation that `stage` makes for the next one and the gradient that the next one sends back.
  std::optional<std::string> check_messages(int stage, int mb) const {
    const int next = stage + 1;
    if (next >= schedule_.num_stages || schedule_.rank_of(next) == schedule_.rank_of(stage)) return std::nullopt;
    const Action forward{ActionKind::kForward, stage, mb};
    if (auto problem = check_message(forward, {ActionKind::kSendForward, stage, mb}, {ActionKind::kForward, next, mb})) return problem;
    if (!has_backward_) {
      const Action send{ActionKind::kSendBackward, next, mb}, recv{ActionKind::kRecvBackward, stage, mb};
      if (has(send) || has(recv)) return fmt::format("{} is there, but no gradient is ever made", to_string(has(send) ? send : recv));
      return std::nullopt;
    }
    const auto backward = [&](int of) {
      const Action whole{ActionKind::kBackward, of, mb};
      return has(whole) ? whole : Action{ActionKind::kInputGrad, of, mb};
    };
    return check_message(backward(next), {ActionKind::kSendBackward, next, mb}, backward(stage));
  }

  std::optional<std::string> check_message(const Action& producer, const Action& send, const Action& consumer) const {
    const Action recv = counterpart(send);
    if (!has(send)) return missing(send);
    if (!has(recv)) return missing(recv);
    if (auto problem = in_order(producer, send)) return problem;
    if (!has(consumer)) return missing(consumer);
    return in_order(recv, consumer);
  }

  [[nodiscard]] bool has(const Action& action) const { return (*position_)[action] != kAbsent; }
  [[nodiscard]] std::optional<std::string> missing(const Action& action) const {
    return fmt::format("rank {} lacks {}", schedule_.rank_of(action.stage), to_string(action));
  }
  // Both stand on one rank.
  [[nodiscard]] std::optional<std::string> in_order(const Action& first, const Action& second) const {
    if (has(first) && (*position_)[first] < (*position_)[second]) return std::nullopt;
    return fmt::format("rank {} has {} before {}", schedule_.rank_of(second.stage), to_string(second), to_string(first));
  }

  const Schedule& schedule_;
  std::optional<ActionTable<int64_t>> position_;  // in its rank's list
  bool has_communication_ = false;
  bool has_backward_ = false;
};

}  // namespace

std::optional<std::string> find_deadlock(const Schedule& lowered, int link_capacity) {
  PENSTOCK_CHECK(link_capacity >= 0, "link capacity {}", link_capacity);
  return DeadlockFinder(lowered, link_capacity).run();
}

std::optional<std::string> check_complete(const Schedule& schedule) { return CompletenessCheck(schedule).run(); }

Schedule proven(const Schedule& schedule) {
  const auto refuse = [&](const std::string& problem) { return error(Code::kInvalidArgument, "schedule {}: {}", schedule.name, problem); };
  if (const auto problem = check_complete(schedule)) throw refuse(*problem);
  Schedule lowered = schedule.has_communication() ? schedule : with_communication(schedule);
  if (const auto problem = check_complete(lowered)) throw refuse(*problem);
  if (const auto problem = find_deadlock(lowered, 0)) throw refuse(*problem);
  return lowered;
}

}  // namespace penstock::plan
