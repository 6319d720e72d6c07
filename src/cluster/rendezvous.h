#pragma once
// How the machines of an elastic job agree who takes part: each has an agent that reports every so often, and is answered with what to do.
// Pure: it is told what was reported and when; it starts nothing and waits for nothing.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"

namespace penstock::cluster {

// How an agent's ranks of its last round ended.
enum class RoundEnd {
  kNone,        // they run, or there was no round yet
  kFinished,    // all with exit code 0
  kFailed,      // one of them was the cause
  kPeerFailed,  // they left because a rank of another machine is gone
};

struct AgentReport {
  std::string agent = {};  // one life of one agent: no other has the same text, also on the same machine
  std::string job = {};    // --rdzv-id
  int node_rank = 0;
  int num_ranks = 1;     // that it can run
  int free_port = 0;     // on its machine, for rank 0's store if rank 0 is there
  int64_t round = 0;     // the last one that it has taken part in; 0 = none
  bool running = false;  // its ranks
  bool leaving = false;  // asked by a signal to end
  RoundEnd end = RoundEnd::kNone;
  int exit_code = 0;     // of the round's ranks
  std::string cause = {};  // "rank 2 killed by signal 9 (SIGKILL)"
};

struct AgentOrder {
  enum class Kind {
    kWait,      // for `text`
    kRun,       // the ranks of `round`; goes on as long as they may run
    kStop,      // ask the ranks to end after their step, with a checkpoint
    kGiveUp,    // the round is lost: ranks that do not leave by themselves are killed
    kEnd,       // the job, with `exit_code`
  };
  Kind kind = Kind::kWait;
  int64_t round = 0;
  int first_rank = 0;
  int num_ranks = 0;  // 0: this machine is not needed now
  int world_size = 0;
  int master_port = 0;
  int restart = 0;  // > 0: not the first round, so go on from this job's checkpoint
  int exit_code = 0;
  std::string text = {};
};

struct RendezvousOptions {
  std::string job = "none";
  int min_nodes = 1;
  int max_nodes = 1;
  int max_restarts = 0;
  milliseconds join_timeout = seconds(600);  // for min_nodes to be there, at the start and after a loss
  milliseconds last_call = seconds(30);      // how long the first round waits for max_nodes once there are min_nodes
  milliseconds dead_after = seconds(15);     // an agent that has not reported for so long is lost
  // How many of so many ranks a round can use, 0 = too few, and a sentence about it.
  std::function<std::pair<int, std::string>(int available)> usable;
};

// Ranks are contiguous by node, in the order of node ranks. The machine of node rank 0 holds this object, so it has rank 0 in every round; when its agent
// is asked to leave, the job ends.
//
// A round ends when all its ranks have finished (the job is done), when a rank fails or a machine is lost, when an agent is asked to leave, and
// when a machine comes that makes the job larger. The next one begins as soon as every machine of the last one has ended its ranks or is lost,
// with those that are there, of at least min_nodes. Only failures count as restarts; exit code 2, the user's to mend, ends the job.
//
// Threads: the caller takes care that one calls at a time.
class Rendezvous {
 public:
  // `first_round`: numbers of rounds go on from here; later lives of a rendezvous use larger ones.
  Rendezvous(RendezvousOptions options, int64_t first_round, Clock::time_point now);

  // kInvalidArgument: an agent of another job; kAlreadyExists: its node rank is another agent's, which is alive.
  [[nodiscard]] Result<AgentOrder> report(const AgentReport& report, Clock::time_point now);

  // After the end of the job: every agent has been told, or is gone.
  [[nodiscard]] bool all_told() const;

 private:
  struct Agent {
    AgentReport report;
    Clock::time_point last_seen;
    bool told_end = false;
  };
  struct Member {
    std::string agent;
    int first_rank = 0, num_ranks = 0;
  };
  enum class Phase { kGather, kRun, kStop, kGiveUp, kEnded };

  [[nodiscard]] const Agent* rival(const AgentReport& report) const;
  void forgive_own_pause(Clock::time_point now);
  void drop_lost(Clock::time_point now);
  void advance(Clock::time_point now);
  void watch_round();
  void welcome();
  void start_gathering(Clock::time_point now);
  void gather(Clock::time_point now);
  [[nodiscard]] bool charge_restart();
  void begin_round(const std::vector<const Agent*>& ready, int available);
  void end_round(Phase phase, const std::string& cause);
  void end_job(int exit_code, const std::string& text);
  [[nodiscard]] AgentOrder order_for(const AgentReport& report) const;
  [[nodiscard]] const Member* member(const std::string& agent) const;
  [[nodiscard]] bool runs(const Member& member) const;
  [[nodiscard]] std::vector<const Agent*> ready_agents() const;  // by node rank
  [[nodiscard]] std::string waiting_for() const;

  const RendezvousOptions options_;
  std::map<std::string, Agent> agents_;
  std::map<std::string, Clock::time_point> disputed_;  // agents whose node rank is another's, since when
  std::vector<Member> members_;                        // of the round, in the order of their ranks
  Phase phase_ = Phase::kGather;
  int64_t round_;
  int rounds_begun_ = 0;
  int restarts_ = 0;
  int world_size_ = 0;
  int master_port_ = 0;
  std::string begun_text_;  // of the round
  std::string cause_;       // why the last round ended; at the end, the job
  int exit_code_ = 0;
  // Of the round that ends.
  std::optional<std::pair<int, std::string>> failure_;  // exit code and cause of a rank that failed by itself
  bool peers_failed_ = false;
  bool lost_ = false;     // a machine
  bool left_ = false;     // a machine, by its own wish
  bool stopped_ = false;  // all ranks, with a checkpoint
  Clock::time_point last_report_;  // of any agent
  Clock::time_point gathering_since_;
  std::optional<Clock::time_point> enough_since_;
};

}  // namespace penstock::cluster
