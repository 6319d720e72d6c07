#pragma once
// The ranks of a training job on this machine: started, watched, and started again from the last checkpoint when one dies.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "cluster/process_group.h"
#include "config/train_config.h"
#include "stop_signals.h"

namespace penstock {

struct TrainOptions {
  std::string config_file;
  std::vector<std::string> overrides;
  bool resume = false;
  bool auto_resume = false;
  bool overwrite = false;
  bool quiet = false;
  bool print_config = false;
  int max_restarts = 0;
};

// The command line of one rank.
[[nodiscard]] std::vector<std::string> worker_command(const TrainOptions& options);

// How one start of the ranks ended.
struct JobEnd {
  int exit_code = 0;    // 0 when all ranks ended well, else that of the rank that was the cause
  bool stopped = false;  // by a signal from outside
  std::string cause;    // "rank 2 killed by signal 9 (SIGKILL)"
};

// One start of the ranks.
class Job {
 public:
  // Borrows `signals`. Throws Error when the ranks cannot be started.
  Job(const config::TrainConfig& config, const TrainOptions& options, const StopSignals& signals);

  // Returns when all ranks have ended. A rank that fails gives the others ten seconds to leave by themselves; a stop signal is passed on.
  [[nodiscard]] JobEnd wait();

 private:
  void note(const cluster::RankExit& ended);
  void pass_on_stop();

  const StopSignals& signals_;
  int asked_ = 0;
  std::unique_ptr<cluster::RankGroup> ranks_;
  Deadline give_up_ = Deadline::never();
  JobEnd end_;
};

// Runs the job to its end, with at most options.max_restarts new starts, each from the newest complete checkpoint, or from the beginning where
// there is none yet. What the user has to correct (exit code 2) and what a signal stopped is not started again. Returns the exit code.
[[nodiscard]] int run_job_with_restarts(const config::TrainConfig& config, TrainOptions options);

}  // namespace penstock
