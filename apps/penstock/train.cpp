// `penstock train`: starts the ranks of a training job on this machine and watches them; under another launcher, becomes one of them.
#include <unistd.h>

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
#include "train_job.h"

namespace penstock {
namespace {

// Replaces this process; returns only when that fails.
[[noreturn]] void become_rank(const std::vector<std::string>& command) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
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
    if (fs::is_directory(config.model.path)) return;  // the ranks read how many layers it has
    throw error(Code::kNotFound, "model.path: {} does not exist or is not a folder; expected a Hugging Face directory", config.model.path);
  }
  std::vector<plan::LayerCost> layers(static_cast<size_t>(config.model.num_layers) + 2, {"DecoderBlock", 1, 0});
  layers.front().type = "Embedding";
  layers.back().type = "Head";
  (void)plan::partition(layers, {config.partition == plan::kProfiled ? "minmax" : config.partition, schedule.num_stages, false, 0}).value();
}

// A single rank cannot start the others again.
void refuse_restarts(const TrainOptions& options) {
  if (options.max_restarts == 0) return;
  throw error(Code::kInvalidArgument, "--max-restarts {} is for ranks that are started here, and this is a rank of another launcher (RANK, OMPI_*, PMI_* or "
              "SLURM_* is set); let that launcher start the job again, with --auto-resume", options.max_restarts);
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
    if (launched) {
      refuse_restarts(options);
      become_rank(worker_command(options));
    }
    const int code = run_job_with_restarts(config, options);
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
  auto* resume = command->add_flag("--resume", options->resume, "Continue from the newest complete checkpoint of the run folder");
  auto* auto_resume = command->add_flag("--auto-resume", options->auto_resume, "The same where there is one, else begin: for launchers that start a job again");
  auto* overwrite = command->add_flag("--overwrite", options->overwrite, "Start anew in a run folder that holds checkpoints (they are removed)");
  auto_resume->excludes(resume)->excludes(overwrite);
  command->add_option("--max-restarts", options->max_restarts, "How often a job whose rank died is started again from its last checkpoint (default 0)")
      ->check(CLI::Range(0, 1000000));
  command->add_flag("--quiet", options->quiet, "No progress line");
  command->add_flag("--print-config", options->print_config, "Only print the whole configuration: every key with its value and meaning");
  command->footer("Starts mesh.data x mesh.pipe processes here. Under torchrun, mpirun, srun or a Kubernetes Indexed Job it is one rank of theirs\n"
                  "(docs/launching.md).\n"
                  "Examples:\n"
                  "  penstock train examples/quickstart.yaml\n"
                  "  penstock train examples/quickstart.yaml --set data.path=my/texts --set max_seconds=600\n"
                  "  penstock train examples/quickstart.yaml --resume\n"
                  "  penstock train examples/quickstart.yaml --set checkpoint.every_steps=50 --max-restarts 3");
  command->callback([options] { train(*options); });
}

}  // namespace penstock
