// `penstock train`: starts the ranks of a training job on this machine and watches them; under another launcher, becomes one of them.
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cluster/launch_env.h"
#include "cluster/process_group.h"
#include "commands.h"
#include "base/file.h"
#include "config/train_config.h"
#include "formats/checkpoint_folder.h"
#include "plan/choose_schedule.h"
#include "plan/partition.h"
#include "plan/schedule_check.h"
#include "plan/schedule_csv.h"
#include "stop_signals.h"
#include "worker_program.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

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
  int max_restarts = 0;
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
  explicit Job(const config::TrainConfig& config, const TrainOptions& options) : restarts_(options.max_restarts > 0) {
    cluster::RankGroupOptions group;
    group.num_ranks = config.world_size();
    group.process.argv = worker_command(options);
    group.cores_per_rank = config.omp_threads;
    group.process.env = {fmt::format("OMP_NUM_THREADS={}", config.omp_threads)};
    ranks_ = cluster::RankGroup::spawn(group).value();
  }

  // "rank 2 was killed by signal 9", of the first that did not end well; for wait() with another result than 0.
  [[nodiscard]] const std::string& what_failed() const { return what_failed_; }
  [[nodiscard]] bool asked_to_stop() const { return asked_ > 0; }

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
    what_failed_ = fmt::format("rank {} {}", ended.rank, ended.status.describe());
    give_up_ = Deadline::after(kLeaveTime);
    if (ended.status.signalled) {
      fmt::print(stderr, "\npenstock train: {}; the others leave too{}\n", what_failed_,
                 restarts_ ? "" : ". `penstock train --resume` continues from the last checkpoint");
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

  const bool restarts_;  // whether another attempt may follow
  std::string what_failed_;
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

// A checkpoint that this run, and not an earlier one in the same folder, may go on from.
std::optional<fs::path> checkpoint_to_resume(const config::TrainConfig& config, bool resumed, fs::file_time_type started) {
  const auto newest = formats::newest_checkpoint(fs::path(config.output) / "checkpoints");
  if (!newest) return std::nullopt;
  std::error_code failed;
  const auto written = fs::last_write_time(*newest / "manifest.json", failed);
  return resumed || (!failed && written >= started) ? newest : std::nullopt;
}

// Exit code 2 is the user's to mend, and a signal to stop is no failure: neither starts again.
int run_with_restarts(const config::TrainConfig& config, TrainOptions options) {
  const bool resumed = options.resume;
  const auto started = fs::file_time_type::clock::now();
  for (int restart = 0;; ++restart) {
    options.max_restarts -= restart > 0 ? 1 : 0;
    Job job(config, options);
    const int code = job.wait();
    if (code == 0 || code == 2 || job.asked_to_stop() || options.max_restarts == 0) return code;
    const auto checkpoint = checkpoint_to_resume(config, resumed, started);
    options.resume = resumed || checkpoint.has_value();
    fmt::print(stderr, "penstock train: restart {}, {} left, because {}: {}\n", restart + 1, options.max_restarts - 1, job.what_failed(),
               checkpoint ? fmt::format("from {}", checkpoint->string()) : "from the beginning");
  }
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
    if (launched && options.max_restarts > 0) {
      throw error(Code::kInvalidArgument, "--max-restarts: this is one rank of {}, and cannot start the others again; let the launcher do it (torchrun --max-restarts)", launched->world_size);
    }
    if (launched) become_rank(worker_command(options));
    const int code = run_with_restarts(config, options);
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
  command->add_option("--max-restarts", options->max_restarts,
                      "When a rank is killed or fails, start all again from the newest checkpoint, so many times (checkpoint.every_steps says how much is lost)")
      ->check(CLI::Range(0, 1000000));
  command->add_flag("--quiet", options->quiet, "No progress line");
  command->add_flag("--print-config", options->print_config, "Only print the whole configuration: every key with its value and meaning");
  command->footer("Starts mesh.data x mesh.pipe processes here. Under torchrun, mpirun or srun (RANK, OMPI_*, PMI_* or SLURM_* set) it is one rank of theirs.\n"
                  "Examples:\n"
                  "  penstock train examples/quickstart.yaml\n"
                  "  penstock train examples/quickstart.yaml --set data.path=my/texts --set max_seconds=600\n"
                  "  penstock train examples/quickstart.yaml --resume\n"
                  "  penstock train examples/quickstart.yaml --set checkpoint.every_steps=100 --max-restarts 3");
  command->callback([options] { train(*options); });
}

}  // namespace penstock
