#pragma once
// The ranks of one job on this machine, started together and ended together.
#include <sys/types.h>

#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "cluster/process.h"

namespace penstock::cluster {

// What a process is told of the others by its environment (launch_env.h).
enum class RankVariables {
  kRank,      // its RankInfo
  kTorchrun,  // that, and what torchrun adds: for Python programs
  kNone,      // nothing: it is no rank of a job. REQUIRES: the only one
};

struct RankGroupOptions {
  int num_ranks = 1;
  ProcessOptions process;  // the same for every rank, besides what `variables` say
  RankVariables variables = RankVariables::kRank;
  // Where other machines hold the other ranks of the job:
  int first_rank = 0;      // of those here
  int world_size = 0;      // 0 = num_ranks
  bool others_on_this_machine = false;  // they are not on other machines at all, but started by other processes of this one
  std::string master_addr = "127.0.0.1";
  int master_port = 0;     // 0 = a free one
  std::string job = {};    // the job's name on all machines; empty = one of its own
  // > 0: each rank runs on so many cores of its own, in order, when there are enough for all; else wherever the system puts it.
  int cores_per_rank = 0;
  std::vector<int> cores = {};  // to take them from, for the ranks here; empty = all that this process may run on
  // Where set, stdout and stderr of rank r (of the job) are appended to FOLDER/rank-r.log.
  std::optional<std::filesystem::path> log_folder;
};

struct RankExit {
  int rank = 0;  // of the job
  ExitStatus status;
};

// Threads: every method may be called from any thread; usually one watches with wait_any() while others call kill_all().
// Owns:    the processes; the destructor kills all and waits for their end.
class RankGroup {
 public:
  // All ranks or none: when one cannot be started, the others are killed and its Error is returned.
  [[nodiscard]] static Result<std::unique_ptr<RankGroup>> spawn(const RankGroupOptions& options);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  // Waits until the deadline for a rank that has ended, and hands out each rank's end exactly once. nullopt at the deadline,
  // and at once when every end has been handed out (then all_reported() is true), or `wake` (a WakeEvent's) is readable.
  [[nodiscard]] std::optional<RankExit> wait_any(Deadline deadline, int wake = -1) EXCLUDES(mutex_);
  [[nodiscard]] bool all_reported() const EXCLUDES(mutex_);

  // SIGTERM to all that still run; waits for nothing.
  void terminate_all();
  // The same, and SIGKILL to those that still run after `grace`. Returns when all have ended.
  void kill_all(milliseconds grace);

  [[nodiscard]] std::vector<pid_t> pids() const;  // by rank
  [[nodiscard]] int master_port() const { return master_port_; }

 private:
  RankGroup(std::vector<std::unique_ptr<ChildProcess>> ranks, int first_rank, int master_port);

  const std::vector<std::unique_ptr<ChildProcess>> ranks_;
  const int first_rank_;
  const int master_port_;
  mutable Mutex mutex_;
  std::vector<bool> reported_ GUARDED_BY(mutex_);
};

// A name that no other job has, on this machine and hardly on another.
[[nodiscard]] std::string new_job_name();

// A TCP port of this machine that nothing listens on now. Another process may take it before it is used: try again then.
// Error kUnavailable when there is none.
[[nodiscard]] Result<int> free_tcp_port();

}  // namespace penstock::cluster
