// `penstock train`: starts the ranks of a training job on this machine and watches them; under another launcher, becomes one of them.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "cluster/launch_env.h"
#include "cluster/process_group.h"
#include "commands.h"
#include "base/file.h"
#include "config/train_config.h"
#include "plan/choose_schedule.h"
#include "plan/partition.h"
#include "plan/schedule_check.h"
#include "plan/schedule_csv.h"
#include "stop_signals.h"
#include "worker_program.h"

namespace penstock {
namespace {

// How long ranks have to leave by themselves, each naming the rank that failed, before they are killed.
constexpr seconds kLeaveTime{10};
// After a stop signal: the step under way, a last checkpoint and the model.
constexpr seconds kStopTime{120};

constexpr int kPeerFailed = 75;  // exit code of a rank that left because of another

struct TrainOptions {
  std::string config_file;
  std::vector<std::string> overrides;
  bool resume = false;
  bool overwrite = false;
  bool quiet = false;
  bool print_config = false;
};

std::vector<std::string> worker_command(const TrainOptions& options) {
  std::vector<std::string> argv{find_worker_program().string(), "train", options.config_file};
  for (const std::string& assignment : options.overrides) argv.insert(argv.end(), {"--set", assignment});
  if (options.resume) argv.emplace_back("--resume");
  if (options.overwrite) argv.emplace_back("--overwrite");
  if (options.quiet) argv.emplace_back("--quiet");
  return argv;
}

// Replaces this process; returns only when that fails.
[[noreturn]] void become_rank(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  ::execv(argv[0], argv.data());
  throw error(Code::kUnavailable, "cannot run {}", command[0]);
}

// The ranks of one job and what became of them.
class Job {
 public:
  explicit Job(const config::TrainConfig& config, const TrainOptions& options) {
    cluster::RankGroupOptions group;
    group.num_ranks = config.world_size();
    group.process.argv = worker_command(options);
    group.cores_per_rank = config.omp_threads;
    group.process.env = {fmt::format("OMP_NUM_THREADS={}", config.omp_threads)};
    ranks_ = cluster::RankGroup::spawn(group).value();
  }

  // The exit code: 0 when all ranks ended well, else that of the first that did not.
  int wait() {
    while (!ranks_->all_reported()) {
      if (const auto ended = ranks_->wait_any(Deadline::after(milliseconds(100)))) note(*ended);
      if (signals_.count() > asked_) pass_on_stop();
      if (give_up_.passed()) {
        fmt::print(stderr, "penstock train: ranks that still run are killed\n");
        ranks_->kill_all(seconds(1));
      }
    }
    return exit_code_;
  }

 private:
  void note(const cluster::RankExit& ended) {
    // 75 says only that another rank failed: that one's own code is the job's.
    const bool tells_more = exit_code_ == kPeerFailed && !ended.status.signalled && !ended.status.success() && ended.status.value != kPeerFailed;
    if (tells_more) exit_code_ = ended.status.value;
    if (ended.status.success() || exit_code_ != 0) return;
    exit_code_ = ended.status.signalled ? 1 : ended.status.value;
    give_up_ = Deadline::after(kLeaveTime);
    if (ended.status.signalled) {
      fmt::print(stderr, "\npenstock train: rank {} {}; the others leave too. `penstock train --resume` continues from the last checkpoint\n",
                 ended.rank, ended.status.describe());
    }
  }

  // The first signal lets the ranks finish their step; the second ends them.
  void pass_on_stop() {
    asked_ = signals_.count();
    if (asked_ > 1) {
      ranks_->kill_all(milliseconds(0));
      return;
    }
    fmt::print(stderr, "\npenstock train: stopping after this step (again to end at once)\n");
    for (const pid_t pid : ranks_->pids()) ::kill(pid, SIGTERM);
    give_up_ = Deadline::after(kStopTime);
  }

  StopSignals signals_;
  std::unique_ptr<cluster::RankGroup> ranks_;
  Deadline give_up_ = Deadline::never();
  int asked_ = 0;
  int exit_code_ = 0;
};

// What the planning code refuses is said here, once, and not by every rank.
void check_plan(const config::TrainConfig& config) {
  if (config.schedule.ends_with(".csv")) {
    (void)plan::proven(plan::parse_csv(read_file(config.schedule, plan::kMaxCsvBytes).value(), config.schedule).value());
    return;
  }
  if (config.schedule == "forward") throw error(Code::kInvalidArgument, "schedule: forward has no backward actions; expected a schedule to train with");
  const auto schedule = plan::make_schedule({config.schedule == plan::kAutoSchedule ? "1f1b" : config.schedule, config.mesh.pipe, config.batch.microbatches, config.chunks}).value();
  std::vector<plan::LayerCost> layers(static_cast<size_t>(config.model.num_layers) + 2, {"DecoderBlock", 1, 0});
  layers.front().type = "Embedding";
  layers.back().type = "Head";
  (void)plan::partition(layers, {config.partition == plan::kProfiled ? "minmax" : config.partition, schedule.num_stages, false, 0}).value();
}

void train(const TrainOptions& options) {
  try {
    const auto config = config::load_train_config(options.config_file, options.overrides).value();
    try {
      check_plan(config);
    } catch (const Error& e) {
      throw error(e.code(), "{}: {}", options.config_file, e.message());
    }
    if (options.print_config) return fmt::print("{}", config::to_yaml(config));
    const auto launched = cluster::rank_from_environment().value();
    if (launched) become_rank(worker_command(options));
    const int code = Job(config, options).wait();
    if (code != 0) throw CLI::RuntimeError(code);
  } catch (const Error& e) {
    fail("train", e);
  }
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  auto* command = app.add_subcommand("train", "Train a model: replicas x pipeline stages");
  command->add_option("config", options->config_file, "The training configuration (YAML)")->required();
  command->add_option("--set", options->overrides, "Override a key of the configuration; may be given several times")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  command->add_flag("--resume", options->resume, "Continue from the newest complete checkpoint of the run folder");
  command->add_flag("--overwrite", options->overwrite, "Start anew in a run folder that holds checkpoints (they are removed)");
  command->add_flag("--quiet", options->quiet, "No progress line");
  command->add_flag("--print-config", options->print_config, "Only print the whole configuration: every key with its value and meaning");
  command->footer("Starts mesh.data x mesh.pipe processes here. Under torchrun, mpirun or srun (RANK, OMPI_*, PMI_* or SLURM_* set) it is one rank of theirs.\n"
                  "Examples:\n"
                  "  penstock train examples/quickstart.yaml\n"
                  "  penstock train examples/quickstart.yaml --set data.path=my/texts --set max_seconds=600\n"
                  "  penstock train examples/quickstart.yaml --resume");
  command->callback([options] { train(*options); });
}

}  // namespace penstock
