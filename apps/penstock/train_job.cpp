#include "train_job.h"

#include <signal.h>

#include <algorithm>
#include <cstdio>

#include "cluster/core_sets.h"
#include "formats/checkpoint_folder.h"
#include "stop_signals.h"
#include "worker_program.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

// How long ranks have to leave by themselves, each naming the rank that failed, before they are killed.
constexpr seconds kLeaveTime{10};
// After a stop signal: the step under way, a last checkpoint and the model.
constexpr seconds kStopTime{120};
constexpr milliseconds kLookInterval{100};

// Threads of ranks per core from which on there is a warning, and a refusal.
constexpr size_t kManyPerCore = 4, kTooManyPerCore = 16;

JobEnd run_once(const config::TrainConfig& config, const TrainOptions& options, const StopSignals& signals) {
  cluster::RankGroupOptions ranks;
  ranks.num_ranks = config.world_size();
  ranks.master_port = config.network.master_port;
  Job job(config, options, ranks);
  int asked = 0;
  while (job.running()) {
    job.watch(Deadline::after(kLookInterval));
    if (signals.count() == asked) continue;
    // The first signal lets the ranks finish their step; the second ends them.
    if (asked > 0 || signals.count() > 1) {
      job.kill();
    } else {
      say("stopping after this step (again to end at once)");
      job.stop();
    }
    asked = signals.count();
  }
  return job.end();
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

void say(const std::string& text) {
  std::fflush(stdout);
  fmt::print(stderr, "\npenstock train: {}\n", text);
}

void check_cores(int num_ranks, int threads_per_rank, bool oversubscribe) {
  const size_t cores = cluster::usable_cores().size();
  const size_t threads = static_cast<size_t>(num_ranks) * static_cast<size_t>(threads_per_rank);
  if (cores == 0 || oversubscribe || threads <= kManyPerCore * cores) return;
  const std::string found = fmt::format("{} ranks x omp_threads {} on {} core{}", num_ranks, threads_per_rank, cores, cores == 1 ? "" : "s");
  if (threads > kTooManyPerCore * cores) {
    throw error(Code::kInvalidArgument, "{}: expected at most {} threads a core on one machine; lower mesh.data, mesh.pipe or omp_threads, use more machines "
                "(docs/launching.md), or start them all the same with --oversubscribe", found, kTooManyPerCore);
  }
  say(fmt::format("{}: they take turns, and are slower together than fewer would be", found));
}

Job::Job(const config::TrainConfig& config, const TrainOptions& options, cluster::RankGroupOptions ranks) {
  ranks.process.argv = worker_command(options);
  ranks.process.argv.emplace_back("--shared-log");
  ranks.process.hold_stop_signals = true;  // one that comes before a rank listens is not lost, and does not end it
  ranks.process.env = {fmt::format("OMP_NUM_THREADS={}", config.omp_threads)};
  ranks.cores_per_rank = config.omp_threads;
  ranks_ = cluster::RankGroup::spawn(ranks).value();
}

void Job::watch(Deadline deadline) {
  while (running()) {
    const auto ended = ranks_->wait_any(deadline);
    if (!ended) break;
    note(*ended);
  }
  if (!running() || !give_up_.passed()) return;
  fmt::print(stderr, "penstock train: ranks that still run are killed\n");
  give_up_ = Deadline::never();
  ranks_->kill_all(seconds(1));
}

void Job::note(const cluster::RankExit& ended) {
  if (ended.status.success()) return;
  const int code = ended.status.signalled ? 1 : ended.status.value;
  // 75 says only that another rank failed: that one's own end is the job's.
  const bool first = end_.exit_code == 0;
  if (!first && (end_.exit_code != kPeerFailed || code == kPeerFailed)) return;
  if (first) give_up();
  end_.exit_code = code;
  end_.cause = ended.status.signalled ? fmt::format("rank {} {}", ended.rank, ended.status.describe())
                                      : fmt::format("rank {} left with {}", ended.rank, ended.status.describe());
  if (ended.status.signalled && !end_.stopped) say(fmt::format("{}; the others leave too", end_.cause));
}

void Job::stop() {
  end_.stopped = true;
  for (const pid_t pid : ranks_->pids()) ::kill(pid, SIGTERM);
  give_up_ = Deadline::after(kStopTime);
}

void Job::give_up() {
  const Deadline leave = Deadline::after(kLeaveTime);
  if (give_up_.is_never() || leave.when() < give_up_.when()) give_up_ = leave;
}

void Job::kill() {
  end_.stopped = true;
  ranks_->kill_all(milliseconds(0));
}

CheckpointStamp newest_checkpoint_of(const config::TrainConfig& config) {
  const auto newest = formats::newest_checkpoint(fs::path(config.output) / "checkpoints");
  if (!newest) return std::nullopt;
  std::error_code failed;
  const auto written = fs::last_write_time(*newest / "manifest.json", failed);
  return failed ? std::nullopt : CheckpointStamp({*newest, written});
}

int run_job_with_restarts(const config::TrainConfig& config, TrainOptions options) {
  const StopSignals signals;
  const CheckpointStamp before = newest_checkpoint_of(config);
  const int max_restarts = options.max_restarts.value_or(0);
  const bool continues = options.resume || options.auto_resume;
  for (int restart = 0;; ++restart) {
    const JobEnd end = run_once(config, options, signals);
    if (end.exit_code == 0 || end.exit_code == kUsersFault || end.stopped) return end.exit_code;
    const CheckpointStamp newest = newest_checkpoint_of(config);
    const bool ours = newest && (continues || newest != before);  // a new start never goes on from an earlier run's
    const int64_t step = ours ? formats::read_manifest(newest->first).value().step : 0;
    if (restart == max_restarts) {
      const std::string after = restart == 0 ? "" : fmt::format(" after {} restart{}, the last that --max-restarts allows", restart, restart == 1 ? "" : "s");
      if (ours) say(fmt::format("{}{}; `penstock train --resume` continues from step {}", end.cause, after, step));
      else if (restart > 0) say(end.cause + after);
      return end.exit_code;
    }
    options.resume = ours;
    say(fmt::format("{}: restart {} of {}, {}", end.cause, restart + 1, max_restarts,
                    ours ? fmt::format("from the checkpoint of step {}", step) : "from the beginning, as there is no checkpoint yet"));
  }
}

}  // namespace penstock
