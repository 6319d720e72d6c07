#include "cluster/rendezvous.h"

#include <algorithm>

namespace penstock::cluster {
namespace {

constexpr int kUsersFault = 2;  // exit code of a rank that found something for the user to correct
// A longer silence of all agents is a pause of this process itself, and says nothing about them.
constexpr milliseconds kOwnPause{2000};

constexpr const char* kHostLeft = "node 0, which holds the rendezvous, was asked to stop";

double seconds_of(milliseconds time) { return std::chrono::duration<double>(time).count(); }

std::string range_text(int min, int max) { return min == max ? fmt::format("{}", min) : fmt::format("{} to {}", min, max); }

}  // namespace

Rendezvous::Rendezvous(RendezvousOptions options, int64_t first_round, Clock::time_point now)
    : options_(std::move(options)), round_(first_round), last_report_(now), gathering_since_(now) {}

Result<AgentOrder> Rendezvous::report(const AgentReport& report, Clock::time_point now) {
  if (report.job != options_.job) {
    return error(Code::kInvalidArgument, "this is the rendezvous of job '{}', and node {} wants job '{}'; give all machines of a job the same --rdzv-id, and each job "
                 "an endpoint of its own", options_.job, report.node_rank, report.job);
  }
  forgive_own_pause(now);
  drop_lost(now);
  if (const Agent* other = rival(report)) {
    const auto since = disputed_.emplace(report.agent, now).first->second;
    if (now - since > options_.dead_after) {
      return error(Code::kAlreadyExists, "node rank {} is taken by {}, which is alive; give each machine a --node-rank of its own", report.node_rank, other->report.agent);
    }
    return AgentOrder{.text = fmt::format("for {} to go, which had node rank {} before", other->report.agent, report.node_rank)};
  }
  disputed_.erase(report.agent);
  Agent& agent = agents_[report.agent];
  agent.report = report;
  agent.last_seen = now;
  advance(now);
  const AgentOrder order = order_for(report);
  agent.told_end = order.kind == AgentOrder::Kind::kEnd;
  if (report.leaving && !report.running && report.node_rank != 0 && phase_ != Phase::kEnded) agents_.erase(report.agent);
  return order;
}

bool Rendezvous::all_told() const {
  return phase_ == Phase::kEnded && std::all_of(agents_.begin(), agents_.end(), [](const auto& agent) { return agent.second.told_end; });
}

const Rendezvous::Agent* Rendezvous::rival(const AgentReport& report) const {
  for (const auto& [name, agent] : agents_) {
    if (name != report.agent && agent.report.node_rank == report.node_rank) return &agent;
  }
  return nullptr;
}

void Rendezvous::forgive_own_pause(Clock::time_point now) {
  const auto pause = now - last_report_;
  last_report_ = now;
  if (pause < kOwnPause) return;
  for (auto& [name, agent] : agents_) agent.last_seen += pause;
}

void Rendezvous::drop_lost(Clock::time_point now) {
  for (auto at = agents_.begin(); at != agents_.end();) {
    const auto& [name, agent] = *at;
    if (now - agent.last_seen <= options_.dead_after) {
      ++at;
      continue;
    }
    if (phase_ != Phase::kEnded && phase_ != Phase::kGather && member(name) != nullptr) {
      lost_ = true;
      end_round(Phase::kGiveUp, fmt::format("node {} ({}) has not answered for {:.1f} s", agent.report.node_rank, name, seconds_of(options_.dead_after)));
    }
    at = agents_.erase(at);
  }
}

void Rendezvous::advance(Clock::time_point now) {
  if (phase_ == Phase::kRun || phase_ == Phase::kStop) watch_round();
  const bool over = phase_ == Phase::kGiveUp && std::none_of(members_.begin(), members_.end(), [this](const Member& m) { return runs(m); });
  if (over) start_gathering(now);
  if (phase_ == Phase::kStop && stopped_) start_gathering(now);
  if (phase_ == Phase::kGather) gather(now);
  const bool host_leaves = std::any_of(agents_.begin(), agents_.end(), [](const auto& a) { return a.second.report.leaving && a.second.report.node_rank == 0; });
  if (host_leaves && phase_ == Phase::kGather) end_job(0, kHostLeft);
}

bool Rendezvous::runs(const Member& member) const {
  const auto found = agents_.find(member.agent);
  return found != agents_.end() && found->second.report.running;
}

void Rendezvous::watch_round() {
  bool all_finished = true, host_leaves = false;
  for (const Member& m : members_) {
    const auto found = agents_.find(m.agent);
    if (found == agents_.end()) continue;  // it left: asked to, after its ranks had ended
    const AgentReport& report = found->second.report;
    left_ = left_ || report.leaving;
    host_leaves = host_leaves || (report.leaving && report.node_rank == 0);
    if (m.num_ranks == 0) continue;
    if (report.leaving && report.round != round_) return end_round(Phase::kGiveUp, fmt::format("node {} was asked to stop", report.node_rank));
    all_finished = all_finished && report.round == round_ && report.end == RoundEnd::kFinished;
    if (report.round != round_ || report.running) continue;
    if (report.end == RoundEnd::kFailed && report.exit_code == kUsersFault) return end_job(kUsersFault, report.cause);
    if (report.end == RoundEnd::kFailed) failure_ = {report.exit_code, report.cause};
    if (report.end == RoundEnd::kPeerFailed) peers_failed_ = true;
    if (report.end == RoundEnd::kFailed || report.end == RoundEnd::kPeerFailed) return end_round(Phase::kGiveUp, report.cause);
  }
  if (all_finished && host_leaves) return end_job(0, kHostLeft);
  if (all_finished && phase_ == Phase::kRun && !left_) return end_job(0, "");
  if (all_finished) {
    if (phase_ == Phase::kRun) end_round(Phase::kStop, "a machine was asked to stop");
    stopped_ = true;
    return;
  }
  if (phase_ == Phase::kRun && !left_) welcome();
}

// A machine that makes the job larger is worth a restart, from a checkpoint that is written for it.
void Rendezvous::welcome() {
  const auto ready = ready_agents();
  const auto newcomer = std::find_if(ready.begin(), ready.end(), [this](const Agent* agent) { return member(agent->report.agent) == nullptr; });
  if (newcomer == ready.end() || static_cast<int>(members_.size()) >= options_.max_nodes) return;
  int available = (*newcomer)->report.num_ranks;
  for (const Member& m : members_) available += agents_.at(m.agent).report.num_ranks;
  if (options_.usable(available).first > world_size_) end_round(Phase::kStop, fmt::format("node {} has come", (*newcomer)->report.node_rank));
}

void Rendezvous::end_round(Phase phase, const std::string& cause) {
  phase_ = phase;
  cause_ = cause;
}

void Rendezvous::end_job(int exit_code, const std::string& text) {
  phase_ = Phase::kEnded;
  exit_code_ = exit_code;
  cause_ = text;
}

void Rendezvous::start_gathering(Clock::time_point now) {
  phase_ = Phase::kGather;
  gathering_since_ = now;
  enough_since_.reset();
}

std::vector<const Rendezvous::Agent*> Rendezvous::ready_agents() const {
  std::vector<const Agent*> ready;
  for (const auto& [name, agent] : agents_) {
    const bool busy = agent.report.running || (phase_ != Phase::kGather && member(name) != nullptr);
    if (!busy && !agent.report.leaving) ready.push_back(&agent);
  }
  std::sort(ready.begin(), ready.end(), [](const Agent* a, const Agent* b) { return a->report.node_rank < b->report.node_rank; });
  return ready;
}

void Rendezvous::gather(Clock::time_point now) {
  const bool any_runs = std::any_of(agents_.begin(), agents_.end(), [](const auto& agent) { return agent.second.report.running; });
  auto ready = ready_agents();
  if (static_cast<int>(ready.size()) > options_.max_nodes) ready.resize(static_cast<size_t>(options_.max_nodes));
  int available = 0;
  for (const Agent* agent : ready) available += agent->report.num_ranks;
  const bool host_there = !ready.empty() && ready.front()->report.node_rank == 0;
  if (!host_there || static_cast<int>(ready.size()) < options_.min_nodes || options_.usable(available).first == 0) {
    enough_since_.reset();
    if (now - gathering_since_ > options_.join_timeout) {
      end_job(1, fmt::format("after {:.0f} s still waiting {}", seconds_of(options_.join_timeout), waiting_for()));
    }
    return;
  }
  if (!enough_since_) enough_since_ = now;
  const bool may_grow = rounds_begun_ == 0 && static_cast<int>(ready.size()) < options_.max_nodes;
  if (any_runs || (may_grow && now - *enough_since_ < options_.last_call)) return;
  if (charge_restart()) begin_round(ready, available);
}

// False: there are none left, and the job has ended.
bool Rendezvous::charge_restart() {
  if (!failure_ && (!peers_failed_ || lost_ || left_)) return true;
  if (restarts_ < options_.max_restarts) {
    ++restarts_;
    return true;
  }
  const std::string after = options_.max_restarts == 0 ? "" : fmt::format(" after {} restart{}, the last that --max-restarts allows", restarts_, restarts_ == 1 ? "" : "s");
  end_job(failure_ ? failure_->first : 1, (failure_ ? failure_->second : cause_) + after);
  return false;
}

void Rendezvous::begin_round(const std::vector<const Agent*>& ready, int available) {
  const auto [world_size, text] = options_.usable(available);
  members_.clear();
  std::vector<std::string> nodes;
  int next = 0;
  for (const Agent* agent : ready) {
    const int num_ranks = std::min(agent->report.num_ranks, world_size - next);
    members_.push_back({agent->report.agent, next, num_ranks});
    nodes.push_back(std::to_string(agent->report.node_rank));
    next += num_ranks;
  }
  const std::string why = failure_ ? failure_->second : cause_;
  const std::string count = failure_ || (peers_failed_ && !lost_ && !left_) ? fmt::format(" (restart {} of {})", restarts_, options_.max_restarts) : "";
  begun_text_ = fmt::format("{}{}{}node{} {}: {}", why, count, why.empty() ? "" : "; going on with ", nodes.size() == 1 ? "" : "s", fmt::join(nodes, ", "), text);
  ++round_;
  ++rounds_begun_;
  world_size_ = world_size;
  master_port_ = ready.front()->report.free_port;
  phase_ = Phase::kRun;
  cause_.clear();
  failure_.reset();
  peers_failed_ = lost_ = left_ = stopped_ = false;
}

const Rendezvous::Member* Rendezvous::member(const std::string& agent) const {
  const auto found = std::find_if(members_.begin(), members_.end(), [&](const Member& m) { return m.agent == agent; });
  return found == members_.end() ? nullptr : &*found;
}

AgentOrder Rendezvous::order_for(const AgentReport& report) const {
  using Kind = AgentOrder::Kind;
  AgentOrder order;
  order.round = round_;
  if (phase_ == Phase::kEnded) {
    order.kind = Kind::kEnd;
    order.exit_code = exit_code_;
    order.text = cause_;
    return order;
  }
  const Member* m = member(report.agent);
  const bool old = report.round != round_;
  if (report.running && (old || phase_ == Phase::kGiveUp)) {
    order.kind = Kind::kGiveUp;
    order.round = report.round;
    order.text = cause_;
  } else if (phase_ == Phase::kGather) {
    order.text = waiting_for();
  } else if (m == nullptr || m->num_ranks == 0) {
    order.text = "as a spare: the job has the machines that it can use";
  } else if (phase_ == Phase::kStop && report.running) {
    order.kind = Kind::kStop;
    order.text = cause_;
  } else if (phase_ != Phase::kGiveUp && (old || report.running)) {
    order.kind = Kind::kRun;
    order.first_rank = m->first_rank;
    order.num_ranks = m->num_ranks;
    order.world_size = world_size_;
    order.master_port = master_port_;
    order.restart = rounds_begun_ - 1;
    order.text = begun_text_;
  } else {
    order.text = "for the ranks of other machines to end";
  }
  return order;
}

std::string Rendezvous::waiting_for() const {
  std::vector<std::string> running, ready;
  int available = 0;
  for (const auto& [name, agent] : agents_) {
    if (agent.report.running) running.push_back(std::to_string(agent.report.node_rank));
  }
  if (!running.empty()) return fmt::format("for the ranks of node {} to end", fmt::join(running, ", "));
  for (const Agent* agent : ready_agents()) {
    ready.push_back(std::to_string(agent->report.node_rank));
    available += agent->report.num_ranks;
  }
  const bool enough = static_cast<int>(ready.size()) >= options_.min_nodes;
  return fmt::format("for machines: {} needed, {} there (node rank {}){}", range_text(options_.min_nodes, options_.max_nodes), ready.size(), fmt::join(ready, ", "),
                     enough ? "; " + options_.usable(available).second : "");
}

}  // namespace penstock::cluster
