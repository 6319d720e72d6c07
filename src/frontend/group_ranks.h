#pragma once
// The processes of one worker group: those of this machine, and those that agents run on others.
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "cluster/process_group.h"
#include "frontend/agent_pool.h"

namespace penstock::frontend {

// Threads: one.
// Owns:    the processes; the destructor kills all of them, and waits for those of this machine.
class GroupRanks {
 public:
  // remote: null for none; started already. Rank r of this machine logs to LOG_FOLDER/rank-r.log, from log_starts[r] on.
  GroupRanks(std::unique_ptr<cluster::RankGroup> local, std::unique_ptr<RemoteRanks> remote, std::filesystem::path log_folder,
             std::vector<std::uintmax_t> log_starts);

  // Waits until the deadline for a rank that has ended, and hands out each end once. nullopt at the deadline, when all ends have been handed out, and when
  // `wake` (a WakeEvent's, which the remote ranks set, too) is readable without an end.
  [[nodiscard]] std::optional<RankEnd> wait_any(Deadline deadline, int wake = -1);
  // SIGTERM to all, SIGKILL after the grace. Returns when all have ended; agents that do not answer are waited for a few seconds longer.
  void kill_all(milliseconds grace);

  [[nodiscard]] std::vector<pid_t> pids() const { return local_->pids(); }  // of this machine
  // "; the last lines of FILE: ...", of a rank of this machine.
  [[nodiscard]] std::string log_tail(int rank) const;

 private:
  const std::unique_ptr<cluster::RankGroup> local_;
  const std::unique_ptr<RemoteRanks> remote_;
  const std::filesystem::path log_folder_;
  const std::vector<std::uintmax_t> log_starts_;
};

}  // namespace penstock::frontend
