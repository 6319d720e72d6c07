#include "plan/schedule.h"

#include <algorithm>
#include <optional>
#include <set>

namespace penstock::plan {

namespace {

constexpr int kMaxRanks = 1024;
constexpr int kMaxMicrobatches = 65536;

struct Named {
  const char* name;
  Schedule (*make)(int num_ranks, int num_microbatches);
};
constexpr Named kSchedules[] = {{"gpipe", gpipe}, {"1f1b", one_f_one_b}, {"forward", forward_only}};

Schedule empty_schedule(std::string name, int num_ranks, int num_microbatches) {
  PENSTOCK_CHECK(num_ranks >= 1 && num_microbatches >= 1, "{} ranks, {} micro-batches", num_ranks, num_microbatches);
  Schedule schedule{std::move(name), num_ranks, num_ranks, num_microbatches, {}};
  schedule.ranks.resize(static_cast<size_t>(num_ranks));
  return schedule;
}

// Note [One global order]
// Walk over the ranks, again and again, each time moving at most one action from the head of each rank's compute list to its
// result. An action moves when its input exists: it is the first stage, or its receive (or the producer, on the same rank)
// already stands in this rank's result. When what it made is for another rank, its send is appended here and the receive is
// appended there, in the same moment; a rank never places its own receives.
// The order of these moments is one order of the whole plan, and every rank's list follows it. Carried out in that order, every
// send finds its receive at the head of the peer's list, so not even a rendezvous per message can get stuck.
class Lowering {
 public:
  explicit Lowering(const Schedule& compute)
      : compute_(compute), result_(compute), next_(compute.ranks.size(), 0), placed_(compute.ranks.size()) {
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

  bool advance(size_t rank) {
    if (next_[rank] >= compute_.ranks[rank].size()) return false;
    const Action action = compute_.ranks[rank][next_[rank]];
    if (!ready(rank, action)) return false;
    ++next_[rank];
    place(rank, action);
    if (const auto send = send_after(action)) {
      const Action recv = counterpart(*send);
      place(rank, *send);
      place(static_cast<size_t>(compute_.rank_of(recv.stage)), recv);
    }
    return true;
  }

  void place(size_t rank, const Action& action) {
    result_.ranks[rank].push_back(action);
    placed_[rank].insert(action);
  }

  [[nodiscard]] bool ready(size_t rank, const Action& action) const {
    const auto& placed = placed_[rank];
    const auto has = [&](ActionKind kind, int stage) { return placed.count({kind, stage, action.microbatch}) > 0; };
    const int stage = action.stage;
    switch (action.kind) {
      case ActionKind::kForward:
        return stage == 0 || has(ActionKind::kRecvForward, stage) || has(ActionKind::kForward, stage - 1);
      case ActionKind::kBackward:
      case ActionKind::kInputGrad:
        return stage == compute_.num_stages - 1 || has(ActionKind::kRecvBackward, stage) ||
               has(ActionKind::kBackward, stage + 1) || has(ActionKind::kInputGrad, stage + 1);
      default: return true;
    }
  }

  [[nodiscard]] std::optional<Action> send_after(const Action& action) const {
    Action send = action;
    switch (action.kind) {
      case ActionKind::kForward:
        if (action.stage == compute_.num_stages - 1) return std::nullopt;
        send.kind = ActionKind::kSendForward;
        break;
      case ActionKind::kBackward:
      case ActionKind::kInputGrad:
        if (action.stage == 0) return std::nullopt;
        send.kind = ActionKind::kSendBackward;
        break;
      default: return std::nullopt;
    }
    if (compute_.rank_of(peer_stage(send)) == compute_.rank_of(action.stage)) return std::nullopt;
    return send;
  }

  [[nodiscard]] std::string stuck() const {
    std::string text;
    for (size_t rank = 0; rank < next_.size(); ++rank) {
      if (next_[rank] >= compute_.ranks[rank].size()) continue;
      text += fmt::format("{}rank {} stands at {}, whose input nobody has made", text.empty() ? "" : "; ", rank,
                          to_string(compute_.ranks[rank][next_[rank]]));
    }
    return text;
  }

  const Schedule& compute_;
  Schedule result_;
  std::vector<size_t> next_;                // per rank: the compute action to place next
  std::vector<std::set<Action>> placed_;    // per rank: what its result holds
};

}  // namespace

Schedule gpipe(int num_ranks, int num_microbatches) {
  Schedule schedule = empty_schedule("gpipe", num_ranks, num_microbatches);
  for (int rank = 0; rank < num_ranks; ++rank) {
    auto& list = schedule.ranks[static_cast<size_t>(rank)];
    for (int mb = 0; mb < num_microbatches; ++mb) list.push_back({ActionKind::kForward, rank, mb});
    for (int mb = 0; mb < num_microbatches; ++mb) list.push_back({ActionKind::kBackward, rank, mb});
  }
  return schedule;
}

Schedule one_f_one_b(int num_ranks, int num_microbatches) {
  Schedule schedule = empty_schedule("1f1b", num_ranks, num_microbatches);
  for (int rank = 0; rank < num_ranks; ++rank) {
    auto& list = schedule.ranks[static_cast<size_t>(rank)];
    const int warm_up = std::min(num_microbatches, num_ranks - 1 - rank);
    for (int mb = 0; mb < warm_up; ++mb) list.push_back({ActionKind::kForward, rank, mb});
    for (int mb = warm_up; mb < num_microbatches; ++mb) {
      list.push_back({ActionKind::kForward, rank, mb});
      list.push_back({ActionKind::kBackward, rank, mb - warm_up});
    }
    for (int mb = num_microbatches - warm_up; mb < num_microbatches; ++mb) list.push_back({ActionKind::kBackward, rank, mb});
  }
  return schedule;
}

Schedule forward_only(int num_ranks, int num_microbatches) {
  Schedule schedule = empty_schedule("forward", num_ranks, num_microbatches);
  for (int rank = 0; rank < num_ranks; ++rank) {
    for (int mb = 0; mb < num_microbatches; ++mb) {
      schedule.ranks[static_cast<size_t>(rank)].push_back({ActionKind::kForward, rank, mb});
    }
  }
  return schedule;
}

const std::vector<std::string>& schedule_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const Named& entry : kSchedules) all.emplace_back(entry.name);
    return all;
  }();
  return names;
}

Result<Schedule> schedule_by_name(std::string_view name, int num_ranks, int num_microbatches) {
  if (num_ranks < 1 || num_ranks > kMaxRanks) {
    return error(Code::kInvalidArgument, "ranks: expected 1 to {}, found {}", kMaxRanks, num_ranks);
  }
  if (num_microbatches < 1 || num_microbatches > kMaxMicrobatches) {
    return error(Code::kInvalidArgument, "microbatches: expected 1 to {}, found {}", kMaxMicrobatches, num_microbatches);
  }
  for (const Named& entry : kSchedules) {
    if (name == entry.name) return entry.make(num_ranks, num_microbatches);
  }
  return error(Code::kInvalidArgument, "schedule: no schedule is called '{}'; expected one of {}", name,
               fmt::join(schedule_names(), ", "));
}

Schedule with_communication(const Schedule& compute) { return Lowering(compute).run(); }

}  // namespace penstock::plan
