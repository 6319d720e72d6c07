#pragma once
// The ranks of a training job on this machine: started, watched, and started again from the last checkpoint when one dies.
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "cluster/elastic_settings.h"
#include "cluster/process_group.h"
#include "config/train_config.h"

namespace penstock {

// Exit codes of a rank: something for the user to correct; it left because of another rank.
inline constexpr int kUsersFault = 2, kPeerFailed = 75;

struct TrainOptions {
  std::string config_file;
  std::vector<std::string> overrides;
  bool resume = false;
  bool auto_resume = false;
  bool overwrite = false;
  bool quiet = false;
  bool print_config = false;
  bool oversubscribe = false;
  std::optional<int> max_restarts;
  cluster::ElasticFlags elastic;
};

// The command line of one rank.
[[nodiscard]] std::vector<std::string> worker_command(const TrainOptions& options);

// "penstock train: TEXT" on stderr, on a line of its own.
void say(const std::string& text);

// A warning for many, an Error kInvalidArgument for far too many processes (unless `oversubscribe`), by the cores that this process may use.
void check_cores(int num_ranks, int threads_per_rank, bool oversubscribe);

// How the ranks ended.
struct JobEnd {
  int exit_code = 0;     // 0 when all ranks ended well, else that of the rank that was the cause
  bool stopped = false;  // asked to
  std::string cause;     // "rank 2 killed by signal 9 (SIGKILL)"
};

// One start of the ranks on this machine. The destructor kills those that still run.
//
// Threads: one, and one for each rank that sleeps until it ends.
class Job {
 public:
  // Throws Error when the ranks cannot be started. `ranks`: which, and where rank 0 listens; its command and environment are filled in here.
  Job(const config::TrainConfig& config, const TrainOptions& options, cluster::RankGroupOptions ranks);

  // Waits for ends until the deadline. A rank that fails gives the others ten seconds to leave by themselves.
  void watch(Deadline deadline);
  [[nodiscard]] bool running() const { return !ranks_->all_reported(); }
  // Asks the ranks to end after their step, with a checkpoint and the model; after two minutes they are killed.
  void stop();
  // The ranks have ten seconds to leave by themselves.
  void give_up();
  void kill();
  [[nodiscard]] const JobEnd& end() const { return end_; }

 private:
  void note(const cluster::RankExit& ended);

  std::unique_ptr<cluster::RankGroup> ranks_;
  Deadline give_up_ = Deadline::never();
  JobEnd end_;
};

// The newest complete checkpoint of a run folder and when it was written: another one later is another write.
using CheckpointStamp = std::optional<std::pair<std::filesystem::path, std::filesystem::file_time_type>>;
[[nodiscard]] CheckpointStamp newest_checkpoint_of(const config::TrainConfig& config);

// Runs the job to its end, with at most options.max_restarts new starts, each from the newest checkpoint of this run, or from the beginning where
// there is none yet. What the user has to correct (exit code 2) and what a signal stopped is not started again. Returns the exit code.
[[nodiscard]] int run_job_with_restarts(const config::TrainConfig& config, TrainOptions options);

}  // namespace penstock
