// `penstock bench`: measurements of what a configuration does on this machine.
#include <memory>

#include "cluster/process_group.h"
#include "commands.h"
#include "config/train_config.h"
#include "worker_program.h"

namespace penstock {
namespace {

struct OverlapOptions {
  std::string config_file;
  std::vector<std::string> overrides;
  double link_gigabytes = 0;
  double link_latency_us = 0;
  int steps = 12;
};

// Until all have ended. Throws CLI::RuntimeError with the code of the first that failed, Error when one does not start.
void run_ranks(const cluster::RankGroupOptions& group) {
  const auto ranks = cluster::RankGroup::spawn(group).value();
  int code = 0;
  while (!ranks->all_reported()) {
    const auto ended = ranks->wait_any(Deadline::after(seconds(1)));
    if (ended && !ended->status.success() && code == 0) code = ended->status.signalled ? 1 : ended->status.value;
  }
  if (code != 0) throw CLI::RuntimeError(code);
}

void overlap(const OverlapOptions& options) {
  try {
    const auto config = config::load_train_config(options.config_file, options.overrides).value();
    if (config.mesh.data < 2) {
      throw error(Code::kInvalidArgument, "mesh.data: expected 2 or more replicas, found {}; one alone has nothing to reduce (--set mesh.data=2)", config.mesh.data);
    }
    cluster::RankGroupOptions group;
    group.num_ranks = config.world_size();
    group.cores_per_rank = config.omp_threads;
    group.process.argv = {find_worker_program().string(), "overlap", options.config_file, "--steps", std::to_string(options.steps), "--link-gigabytes",
                          fmt::format("{}", options.link_gigabytes), "--link-latency-us", fmt::format("{}", options.link_latency_us)};
    for (const std::string& assignment : options.overrides) group.process.argv.insert(group.process.argv.end(), {"--set", assignment});
    group.process.env = {fmt::format("OMP_NUM_THREADS={}", config.omp_threads)};
    run_ranks(group);
  } catch (const Error& e) {
    fail("bench overlap", e);
  }
}

// What `penstock bench prefill` and `decode` take.
struct ModelBenchOptions {
  std::string model = "1b";
  std::string precision = "auto";
  std::string device = "cpu";
  int threads = 2;
  int batch = 1;
  int prompt = 64;
  int repeats = 16;
};

void bench_model(const std::string& work, const ModelBenchOptions& options) {
  try {
    cluster::RankGroupOptions group;
    group.num_ranks = 1;
    group.process.argv = {find_worker_program().string(), "bench", work, "--model", options.model, "--precision", options.precision, "--device", options.device, "--batch",
                          std::to_string(options.batch), "--prompt", std::to_string(options.prompt), "--repeats", std::to_string(options.repeats)};
    group.process.env = {fmt::format("OMP_NUM_THREADS={}", options.threads)};
    run_ranks(group);
  } catch (const Error& e) {
    fail("bench " + work, e);
  }
}

void add_model_bench(CLI::App& command, const std::string& work, const std::string& what, const ModelBenchOptions& defaults) {
  auto options = std::make_shared<ModelBenchOptions>(defaults);
  auto* bench = command.add_subcommand(work, what);
  bench->add_option("model", options->model, "1b (22 layers x 2048, 1.1 billion parameters), 135m (30 x 576), or a config.json or its folder")->capture_default_str();
  bench->add_option("--precision", options->precision, "What weights and products are in; auto = bf16 on a GPU, and where the processor computes in it")
      ->check(CLI::IsMember({"auto", "fp32", "bf16", "int8", "int4"}))
      ->capture_default_str();
  bench->add_option("--device", options->device, "cpu, or cuda: a GPU")->check(CLI::IsMember({"cpu", "cuda"}))->capture_default_str();
  bench->add_option("--threads", options->threads, "Threads that compute")->check(CLI::Range(1, 1024))->capture_default_str();
  if (work == "decode") bench->add_option("--batch", options->batch, "Sequences that are continued at once")->check(CLI::Range(1, 1024))->capture_default_str();
  bench->add_option("--prompt", options->prompt, "Tokens of each prompt")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  bench->add_option("--repeats", options->repeats, work == "decode" ? "Steps that are measured" : "Prompts that are measured, after one of warm-up")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  bench->footer(fmt::format("Random weights; nothing is read but a config.json. Example:\n  penstock bench {} 135m --precision int8", work));
  bench->callback([work, options] { bench_model(work, *options); });
}

}  // namespace

void add_bench_command(CLI::App& app) {
  auto options = std::make_shared<OverlapOptions>();
  auto* command = app.add_subcommand("bench", "Measure what a configuration does on this machine");
  command->require_subcommand(1);
  auto* overlapped = command->add_subcommand("overlap", "How much of the replicas' communication is hidden behind the backward passes");
  overlapped->add_option("config", options->config_file, "A training configuration (YAML) with 2 or more replicas")->required();
  overlapped->add_option("--set", options->overrides, "Override a key of the configuration; may be given several times")->type_name("KEY=VALUE")->allow_extra_args(false);
  overlapped->add_option("--link-gigabytes", options->link_gigabytes, "Emulate a link of so many GB/s between replicas; 0 = as the network is")->check(CLI::NonNegativeNumber);
  overlapped->add_option("--link-latency-us", options->link_latency_us, "Latency of the emulated link")->check(CLI::NonNegativeNumber);
  overlapped->add_option("--steps", options->steps, "Steps that are measured, after two of warm-up")->check(CLI::Range(1, 100000))->capture_default_str();
  overlapped->footer("Trains the same model three times by turns: as configured, reducing only after the backward passes, and not reducing at all.\n"
                     "Examples:\n"
                     "  penstock bench overlap examples/quickstart.yaml\n"
                     "  penstock bench overlap examples/quickstart.yaml --set bucket_mib=4 --link-gigabytes 0.3");
  overlapped->callback([options] { overlap(*options); });
  add_bench_serve(*command);
  add_model_bench(*command, "prefill", "How fast this machine reads prompts", {.prompt = 512, .repeats = 5});
  add_model_bench(*command, "decode", "How fast it continues them, and how much of the memory's bandwidth that takes", {.repeats = 32});
}

}  // namespace penstock
