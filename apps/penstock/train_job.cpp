#include "train_job.h"

#include <signal.h>

#include <cstdio>
#include <filesystem>

#include "formats/checkpoint_folder.h"
#include "worker_program.h"

namespace penstock {
namespace {

// How long ranks have to leave by themselves, each naming the rank that failed, before they are killed.
constexpr seconds kLeaveTime{10};
// After a stop signal: the step under way, a last checkpoint and the model.
constexpr seconds kStopTime{120};

constexpr int kUsersFault = 2;   // exit code of a rank that found something for the user to correct
constexpr int kPeerFailed = 75;  // exit code of a rank that left because of another

// Of the newest checkpoint; nullopt where there is none.
std::optional<int64_t> newest_step(const std::filesystem::path& folder) {
  const auto newest = formats::newest_checkpoint(folder);
  if (!newest) return std::nullopt;
  return formats::read_manifest(*newest).value().step;
}

std::filesystem::path checkpoints_of(const config::TrainConfig& config) { return std::filesystem::path(config.output) / "checkpoints"; }

void say(const std::string& text) {
  std::fflush(stdout);
  fmt::print(stderr, "\npenstock train: {}\n", text);
}

}  // namespace

std::vector<std::string> worker_command(const TrainOptions& options) {
  std::vector<std::string> argv{find_worker_program().string(), "train", options.config_file};
  for (const std::string& assignment : options.overrides) argv.insert(argv.end(), {"--set", assignment});
  if (options.resume) argv.emplace_back("--resume");
  if (options.auto_resume) argv.emplace_back("--auto-resume");
  if (options.overwrite) argv.emplace_back("--overwrite");
  if (options.quiet) argv.emplace_back("--quiet");
  return argv;
}

Job::Job(const config::TrainConfig& config, const TrainOptions& options, const StopSignals& signals) : signals_(signals) {
  cluster::RankGroupOptions group;
  group.num_ranks = config.world_size();
  group.process.argv = worker_command(options);
  group.cores_per_rank = config.omp_threads;
  group.process.env = {fmt::format("OMP_NUM_THREADS={}", config.omp_threads)};
  ranks_ = cluster::RankGroup::spawn(group).value();
}

JobEnd Job::wait() {
  while (!ranks_->all_reported()) {
    if (const auto ended = ranks_->wait_any(Deadline::after(milliseconds(100)))) note(*ended);
    if (signals_.count() > asked_) pass_on_stop();
    if (give_up_.passed()) {
      fmt::print(stderr, "penstock train: ranks that still run are killed\n");
      ranks_->kill_all(seconds(1));
      give_up_ = Deadline::never();
    }
  }
  return end_;
}

void Job::note(const cluster::RankExit& ended) {
  if (ended.status.success()) return;
  const int code = ended.status.signalled ? 1 : ended.status.value;
  // 75 says only that another rank failed: that one's own end is the job's.
  const bool first = end_.exit_code == 0;
  if (!first && (end_.exit_code != kPeerFailed || code == kPeerFailed)) return;
  if (first) give_up_ = Deadline::after(kLeaveTime);
  end_.exit_code = code;
  end_.cause = ended.status.signalled ? fmt::format("rank {} {}", ended.rank, ended.status.describe())
                                      : fmt::format("rank {} left with {}", ended.rank, ended.status.describe());
  if (ended.status.signalled && !end_.stopped) say(fmt::format("{}; the others leave too", end_.cause));
}

// The first signal lets the ranks finish their step; the second ends them.
void Job::pass_on_stop() {
  const bool again = end_.stopped || signals_.count() - asked_ > 1;
  asked_ = signals_.count();
  end_.stopped = true;
  if (again) {
    ranks_->kill_all(milliseconds(0));
    return;
  }
  say("stopping after this step (again to end at once)");
  for (const pid_t pid : ranks_->pids()) ::kill(pid, SIGTERM);
  give_up_ = Deadline::after(kStopTime);
}

int run_job_with_restarts(const config::TrainConfig& config, TrainOptions options) {
  const StopSignals signals;
  // A new start must not take another run's checkpoint for its own, so --overwrite is done here, and what else is there stays refused.
  if (options.overwrite && !options.resume) std::filesystem::remove_all(checkpoints_of(config));
  const bool ours = options.resume || options.auto_resume || !formats::newest_checkpoint(checkpoints_of(config));
  for (int restart = 0;; ++restart) {
    const JobEnd end = Job(config, options, signals).wait();
    if (end.exit_code == 0 || end.exit_code == kUsersFault || end.stopped) return end.exit_code;
    const auto step = ours ? newest_step(checkpoints_of(config)) : std::nullopt;
    if (restart == options.max_restarts) {
      const std::string after = restart == 0 ? "" : fmt::format(" after {} restart{}, the last that --max-restarts allows", restart, restart == 1 ? "" : "s");
      if (step) say(fmt::format("{}{}; `penstock train --resume` continues from step {}", end.cause, after, *step));
      else if (restart > 0) say(end.cause + after);
      return end.exit_code;
    }
    options.resume = step.has_value();
    say(fmt::format("{}: restart {} of {}, {}", end.cause, restart + 1, options.max_restarts,
                    step ? fmt::format("from the checkpoint of step {}", *step) : "from the beginning, as there is no checkpoint yet"));
  }
}

}  // namespace penstock
