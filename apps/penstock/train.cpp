// `penstock train`: starts the ranks of a training job on this machine and watches them; under another launcher, becomes one of them.
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "cluster/launch_env.h"
#include "commands.h"
#include "base/file.h"
#include "config/train_config.h"
#include "plan/choose_schedule.h"
#include "plan/partition.h"
#include "plan/schedule_check.h"
#include "plan/schedule_csv.h"
#include "train_agent.h"
#include "train_job.h"

namespace penstock {
namespace {

// Replaces this process; returns only when that fails.
[[noreturn]] void become_rank(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  // A stop signal that comes before the rank listens waits for it.
  sigset_t stop_signals;
  ::sigemptyset(&stop_signals);
  ::sigaddset(&stop_signals, SIGINT);
  ::sigaddset(&stop_signals, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &stop_signals, nullptr);
  ::execv(argv[0], argv.data());
  throw error(Code::kUnavailable, "cannot run {}", command[0]);
}

// What the planning code refuses is said here, once, and not by every rank.
void check_plan(const config::TrainConfig& config) {
  if (config.schedule.ends_with(".csv")) {
    (void)plan::proven(plan::parse_csv(read_file(config.schedule, plan::kMaxCsvBytes).value(), config.schedule).value());
    return;
  }
  if (config.schedule == "forward") throw error(Code::kInvalidArgument, "schedule: forward has no backward actions; expected a schedule to train with");
  const auto schedule = plan::make_schedule({config.schedule == plan::kAutoSchedule ? "1f1b" : config.schedule, config.mesh.pipe, config.batch.microbatches, config.chunks}).value();
  if (!config.model.path.empty()) {
    std::error_code failed;
    if (std::filesystem::is_directory(config.model.path, failed)) return;  // the ranks read how many layers it has
    throw error(Code::kNotFound, "model.path: {} does not exist or is not a folder; expected a Hugging Face directory", config.model.path);
  }
  std::vector<plan::LayerCost> layers(static_cast<size_t>(config.model.num_layers) + 2, {"DecoderBlock", 1, 0});
  layers.front().type = "Embedding";
  layers.back().type = "Head";
  (void)plan::partition(layers, {config.partition == plan::kProfiled ? "minmax" : config.partition, schedule.num_stages, false, 0}).value();
}

// A single rank cannot start the others again.
void refuse_restarts(const TrainOptions& options) {
  if (options.max_restarts.value_or(0) == 0) return;
  throw error(Code::kInvalidArgument, "--max-restarts {} is for ranks that are started here, and this is a rank of another launcher (RANK, OMPI_*, PMI_* or "
              "SLURM_* is set); let that launcher start the job again, with --auto-resume", *options.max_restarts);
}

// The exit code.
int start(const config::TrainConfig& config, TrainOptions options) {
  if (options.max_restarts) options.elastic.max_restarts = std::to_string(*options.max_restarts);
  if (const auto several = cluster::elastic_settings(options.elastic, config::process_environment()).value()) return run_agent(config, options, *several);
  if (cluster::rank_from_environment().value()) {
    refuse_restarts(options);
    become_rank(worker_command(options));
  }
  check_cores(config.world_size(), config.omp_threads, options.oversubscribe);
  return run_job_with_restarts(config, options);
}

void train(const TrainOptions& options) {
  try {
    if (options.config_file.empty()) {
      if (!options.print_config) throw error(Code::kInvalidArgument, "no configuration file is named, e.g. `penstock train examples/quickstart.yaml`");
      return fmt::print("{}", config::to_yaml({}));  // the defaults
    }
    const auto config = config::load_train_config(options.config_file, options.overrides).value();
    try {
      check_plan(config);
    } catch (const Error& e) {
      throw error(e.code(), "{}: {}", options.config_file, e.message());
    }
    if (options.print_config) return fmt::print("{}", config::to_yaml(config));
    const int code = start(config, options);
    if (code != 0) throw CLI::RuntimeError(code);
  } catch (const Error& e) {
    fail("train", e);
  }
}

void add_options_of_several_machines(CLI::App& command, cluster::ElasticFlags& flags) {
  const char* group = "Several machines (names, PET_* variables and meanings are torchrun's)";
  const auto add = [&](const char* name, std::optional<std::string>& value, const char* type, const char* help) {
    command.add_option(name, value, help)->type_name(type)->group(group);
  };
  add("--nnodes", flags.nnodes, "N|MIN:MAX", "How many machines; with MIN:MAX the job goes on with any number between, from the last checkpoint");
  add("--nproc-per-node", flags.nproc_per_node, "N", "Ranks that this machine can run (default: mesh.data x mesh.pipe x mesh.tensor / MAX)");
  add("--node-rank", flags.node_rank, "N", "This machine's number (default: SLURM_NODEID, JOB_COMPLETION_INDEX)");
  add("--rdzv-endpoint", flags.rdzv_endpoint, "HOST[:PORT]", "The machine of node rank 0, where all meet (port 29400)");
  add("--rdzv-id", flags.rdzv_id, "NAME", "The job's name, the same on all machines");
  add("--rdzv-conf", flags.rdzv_conf, "KEY=N,...", "join_timeout, last_call_timeout, keep_alive_interval (seconds), keep_alive_max_attempt");
}

}  // namespace

void add_train_command(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  auto* command = app.add_subcommand("train", "Train a model: replicas x pipeline stages");
  command->add_option("config", options->config_file, "The training configuration (YAML)");
  command->add_option("--set", options->overrides, "Override a key of the configuration; may be given several times")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  auto* resume = command->add_flag("--resume", options->resume, "Continue from the newest complete checkpoint of the run folder");
  auto* auto_resume = command->add_flag("--auto-resume", options->auto_resume, "The same where there is one, else begin: for launchers that start a job again");
  auto* overwrite = command->add_flag("--overwrite", options->overwrite, "Start anew in a run folder that holds checkpoints (they are removed)");
  auto_resume->excludes(resume)->excludes(overwrite);
  resume->excludes(overwrite);
  command->add_option("--max-restarts", options->max_restarts, "How often a job whose rank died is started again from its last checkpoint (default 0)")
      ->check(CLI::Range(0, 1000000));
  command->add_flag("--oversubscribe", options->oversubscribe, "Also start far more ranks than this machine has cores");
  command->add_flag("--quiet", options->quiet, "No progress line");
  command->add_flag("--print-config", options->print_config, "Only print the whole configuration, of no file the defaults: every key with its value and meaning");
  add_options_of_several_machines(*command, options->elastic);
  command->footer("Starts mesh.data x mesh.pipe x mesh.tensor processes here. Under torchrun, mpirun, srun or a Kubernetes Indexed Job it is one rank of theirs; with --nnodes it is\n"
                  "the agent of one machine of several. docs/launching.md has all of them.\n"
                  "Examples:\n"
                  "  penstock train examples/quickstart.yaml\n"
                  "  penstock train examples/quickstart.yaml --set data.path=my/texts --set max_seconds=600\n"
                  "  penstock train examples/quickstart.yaml --resume\n"
                  "  penstock train examples/quickstart.yaml --set device=cuda --set precision=fp16     (a GPU is taken without being asked for where there is one)\n"
                  "  penstock train examples/quickstart.yaml --set checkpoint.every_steps=50 --max-restarts 3\n"
                  "  penstock train CONFIG.yaml --nnodes 1:4 --node-rank 0 --rdzv-endpoint host0:29400 --max-restarts 3     (1, 2, 3 on the others)");
  command->callback([options] { train(*options); });
}

}  // namespace penstock
