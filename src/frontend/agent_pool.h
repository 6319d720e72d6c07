#pragma once
// The machines that have joined this front door through `penstock agent`, and the ranks of worker groups that run there.
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "cluster/agent_messages.h"
#include "cluster/host_ledger.h"
#include "cluster/wake_event.h"

namespace penstock::frontend {

// The way to one agent. Threads: every method from any thread. Blocks: never; what cannot be sent is dropped, and the agent's loss is told soon.
class AgentLink {
 public:
  virtual ~AgentLink() = default;
  virtual void start_ranks(const cluster::StartRanks& start) = 0;
  virtual void stop_ranks(const cluster::StopRanks& stop) = 0;
};

// A rank's end, in words that continue "rank 3 of worker group 0 ...".
struct RankEnd {
  int rank = 0;
  std::string how;         // "was killed by signal 9 (SIGKILL) on machine 'b'"
  bool explains = false;   // it was killed, or lost with its machine: a better cause than a rank that has exited
  bool bad_input = false;  // it will never work
  std::string log_tail;    // for who waits for the first start
};

class AgentPool;

// The ranks of one worker group on other machines, from their places to their end.
//
// Threads:  one.
// Lifetime: the pool outlives it. The destructor tells the agents to kill what still runs and waits for nothing; a place is free again when its agent
//           says that its processes have ended, or is lost.
class RemoteRanks {
 public:
  ~RemoteRanks();
  RemoteRanks(const RemoteRanks&) = delete;
  RemoteRanks& operator=(const RemoteRanks&) = delete;

  // This machine, as the agents call it; "127.0.0.1" if all of them are on it.
  [[nodiscard]] const std::string& front_door() const { return front_door_; }
  // Tells each agent to start its part. `common`: what is the same for all; id, ranks, devices and cores are filled in. To be called once.
  void start(const cluster::StartRanks& common);
  // The next rank that has ended; nullopt: none since.
  [[nodiscard]] std::optional<RankEnd> take_end();
  // Tells the agents to end them.
  void stop(milliseconds grace);
  // Waits until all have ended or are lost. false: not by the deadline.
  [[nodiscard]] bool wait_ended(Deadline deadline);
  // "'b', 'c'"
  [[nodiscard]] std::string machines() const;

 private:
  friend class AgentPool;
  RemoteRanks(AgentPool& pool, std::vector<cluster::HostShare> shares, std::vector<uint64_t> ids, std::string front_door);
  AgentPool& pool_;
  const std::vector<cluster::HostShare> shares_;
  const std::vector<uint64_t> ids_;  // of the parts, as the shares
  const std::string front_door_;
};

// Threads: every method from any thread.
class AgentPool {
 public:
  // An agent has come: its number. Errors: kFailedPrecondition (another protocol), kAlreadyExists (one of this name is there).
  [[nodiscard]] Result<uint64_t> join(const cluster::AgentHello& hello, std::shared_ptr<AgentLink> link) EXCLUDES(mutex_);
  // It has gone, and with it every rank there.
  void leave(uint64_t agent, const std::string& why) EXCLUDES(mutex_);
  // What it says of its ranks. Reports of ranks that are not its own are passed over.
  void report(uint64_t agent, const cluster::RanksReport& report) EXCLUDES(mutex_);

  // Places for the ranks of a group (host_ledger.h). `told` is set at every end and must outlive the ranks. Errors: kResourceExhausted naming what is missing.
  [[nodiscard]] Result<std::unique_ptr<RemoteRanks>> reserve(const cluster::GroupShape& shape, cluster::WakeEvent& told) EXCLUDES(mutex_);
  // Changes when places may have become free. To be asked before reserve(), if its failure is to be followed by wait_for_change().
  [[nodiscard]] uint64_t changes() const EXCLUDES(mutex_);
  void wait_for_change(uint64_t since, Deadline deadline) EXCLUDES(mutex_);

  [[nodiscard]] int num_agents() const EXCLUDES(mutex_);

 private:
  friend class RemoteRanks;
  struct Agent {
    std::string name;
    std::string front_door;
    std::shared_ptr<AgentLink> link;
  };
  struct Part {  // of a group, on one machine
    uint64_t agent = 0;
    cluster::HostShare share;
    cluster::WakeEvent* told = nullptr;  // null: its group does not listen any more
    bool started = false;
    std::deque<RankEnd> ends;            // that were not taken yet
    bool ended = false;
  };
  [[nodiscard]] std::shared_ptr<AgentLink> link_of(uint64_t id) EXCLUDES(mutex_);
  void add_end(Part& part, RankEnd end) REQUIRES(mutex_);
  void finish(uint64_t id, Part& part) REQUIRES(mutex_);
  void forget(const std::vector<uint64_t>& ids) EXCLUDES(mutex_);

  mutable Mutex mutex_;
  CondVar changed_;
  cluster::HostLedger ledger_ GUARDED_BY(mutex_);  // its machines are numbered as the agents
  std::map<uint64_t, Agent> agents_ GUARDED_BY(mutex_);
  std::map<uint64_t, Part> parts_ GUARDED_BY(mutex_);  // until they have ended and their group does not listen
  uint64_t next_id_ GUARDED_BY(mutex_) = 1;
  uint64_t changes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace penstock::frontend
