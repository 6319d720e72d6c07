#include "frontend/agent_pool.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "config/http_address.h"

namespace penstock::frontend {

Result<uint64_t> AgentPool::join(const cluster::AgentHello& hello, std::shared_ptr<AgentLink> link) {
  const std::string& name = hello.offer.name;
  if (hello.protocol != cluster::kAgentProtocol) {
    return error(Code::kFailedPrecondition, "agent '{}' speaks version {} of the agents' protocol, this front door version {}; run the same build on both machines",
                 name, hello.protocol, cluster::kAgentProtocol);
  }
  uint64_t number = 0;
  {
    MutexLock lock(mutex_);
    for (const auto& [other, agent] : agents_) {
      if (agent.name == name) return error(Code::kAlreadyExists, "an agent named '{}' has joined already; name this one with --name", name);
    }
    number = ledger_.add(hello.offer);
    agents_.emplace(number, Agent{name, hello.front_door, std::move(link)});
    ++changes_;
    changed_.notify_all();
  }
  spdlog::info("agent '{}' has joined with {} GPU(s) and {} core(s)", name, hello.offer.devices.size(), hello.offer.cores.size());
  return number;
}

void AgentPool::leave(uint64_t number, const std::string& why) {
  std::string name;
  {
    MutexLock lock(mutex_);
    const auto found = agents_.find(number);
    if (found == agents_.end()) return;
    name = found->second.name;
    agents_.erase(found);
    ledger_.remove(number);
    for (auto& [id, part] : parts_) {
      if (part.agent != number || part.ended) continue;
      add_end(part, {part.share.first_rank, fmt::format("is lost with machine '{}': {}", name, why), true, false, ""});
      part.ended = true;
    }
    std::erase_if(parts_, [](const auto& entry) { return entry.second.ended && !entry.second.told; });
    ++changes_;
    changed_.notify_all();
  }
  spdlog::warn("agent '{}' has gone: {}", name, why);
}

void AgentPool::report(uint64_t number, const cluster::RanksReport& report) {
  MutexLock lock(mutex_);
  const auto found = parts_.find(report.id);
  if (found == parts_.end() || found->second.agent != number || found->second.ended) return;
  Part& part = found->second;
  const std::string where = fmt::format("on machine '{}'", part.share.name);
  switch (report.kind) {
    case cluster::RanksReport::Kind::kRankEnded: {
      const bool killed = report.status.signalled;
      const bool bad_input = !killed && report.status.value == 2;  // a worker's word for input that will never work
      return add_end(part, {report.rank, fmt::format("{} {} {}", killed ? "was" : "ended with", report.status.describe(), where), killed, bad_input, report.text});
    }
    case cluster::RanksReport::Kind::kNotStarted:
      return add_end(part, {part.share.first_rank, fmt::format("cannot be started {}: {}", where, report.text), true,
                            report.code == Code::kInvalidArgument || report.code == Code::kNotFound, ""});
    case cluster::RanksReport::Kind::kAllEnded: return finish(report.id, part);
  }
}

void AgentPool::add_end(Part& part, RankEnd end) {
  if (!part.told) return;
  part.ends.push_back(std::move(end));
  part.told->set();
}

// Its place is free again.
void AgentPool::finish(uint64_t id, Part& part) {
  part.ended = true;
  ledger_.release(part.share);
  if (!part.told) parts_.erase(id);
  ++changes_;
  changed_.notify_all();
}

Result<std::unique_ptr<RemoteRanks>> AgentPool::reserve(const cluster::GroupShape& shape, cluster::WakeEvent& told) {
  MutexLock lock(mutex_);
  auto shares = ledger_.place(shape);
  if (!shares) return shares.error();
  std::vector<uint64_t> ids;
  std::string front_door = "127.0.0.1";
  for (const cluster::HostShare& share : *shares) {
    ids.push_back(next_id_++);
    parts_.emplace(ids.back(), Part{share.host, share, &told, false, {}, false});
    const std::string& name = agents_.at(share.host).front_door;
    if (config::is_loopback(front_door) && !config::is_loopback(name)) front_door = name;
  }
  return std::unique_ptr<RemoteRanks>(new RemoteRanks(*this, std::move(*shares), std::move(ids), std::move(front_door)));
}

uint64_t AgentPool::changes() const {
  MutexLock lock(mutex_);
  return changes_;
}

void AgentPool::wait_for_change(uint64_t since, Deadline deadline) {
  MutexLock lock(mutex_);
  while (changes_ == since) {
    if (!changed_.wait(mutex_, deadline)) return;
  }
}

int AgentPool::num_agents() const {
  MutexLock lock(mutex_);
  return static_cast<int>(agents_.size());
}

// Null when the part has ended.
std::shared_ptr<AgentLink> AgentPool::link_of(uint64_t id) {
  MutexLock lock(mutex_);
  const auto part = parts_.find(id);
  if (part == parts_.end() || part->second.ended) return nullptr;
  return agents_.at(part->second.agent).link;
}

// Nobody listens to these parts any more. Those that were never started have ended with this.
void AgentPool::forget(const std::vector<uint64_t>& ids) {
  MutexLock lock(mutex_);
  for (const uint64_t id : ids) {
    Part& part = parts_.at(id);
    part.told = nullptr;
    part.ends.clear();
    if (part.ended) parts_.erase(id);
    else if (!part.started) finish(id, part);
  }
}

RemoteRanks::RemoteRanks(AgentPool& pool, std::vector<cluster::HostShare> shares, std::vector<uint64_t> ids, std::string front_door)
    : pool_(pool), shares_(std::move(shares)), ids_(std::move(ids)), front_door_(std::move(front_door)) {}

RemoteRanks::~RemoteRanks() {
  stop(milliseconds(0));
  pool_.forget(ids_);
}

void RemoteRanks::start(const cluster::StartRanks& common) {
  for (size_t i = 0; i < ids_.size(); ++i) {
    cluster::StartRanks start = common;
    start.id = ids_[i];
    start.first_rank = shares_[i].first_rank;
    start.num_ranks = shares_[i].num_ranks;
    start.devices = shares_[i].devices;
    start.cores = shares_[i].cores;
    const auto link = pool_.link_of(ids_[i]);
    if (!link) continue;  // it was lost meanwhile: its end waits to be taken
    {
      MutexLock lock(pool_.mutex_);
      pool_.parts_.at(ids_[i]).started = true;
    }
    link->start_ranks(start);
  }
}

std::optional<RankEnd> RemoteRanks::take_end() {
  MutexLock lock(pool_.mutex_);
  for (const uint64_t id : ids_) {
    auto& ends = pool_.parts_.at(id).ends;
    if (ends.empty()) continue;
    RankEnd end = std::move(ends.front());
    ends.pop_front();
    return end;
  }
  return std::nullopt;
}

void RemoteRanks::stop(milliseconds grace) {
  for (const uint64_t id : ids_) {
    {
      MutexLock lock(pool_.mutex_);
      if (!pool_.parts_.at(id).started) continue;
    }
    if (const auto link = pool_.link_of(id)) link->stop_ranks({id, grace});
  }
}

bool RemoteRanks::wait_ended(Deadline deadline) {
  MutexLock lock(pool_.mutex_);
  const auto ended = [this](uint64_t id) REQUIRES(pool_.mutex_) { return pool_.parts_.at(id).ended || !pool_.parts_.at(id).started; };
  while (!std::all_of(ids_.begin(), ids_.end(), ended)) {
    if (!pool_.changed_.wait(pool_.mutex_, deadline)) return false;
  }
  return true;
}

std::string RemoteRanks::machines() const {
  std::string names;
  for (const auto& share : shares_) names += fmt::format("{}'{}'", names.empty() ? "" : ", ", share.name);
  return names;
}

}  // namespace penstock::frontend
