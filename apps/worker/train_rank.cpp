#include <ATen/Parallel.h>
#include <unistd.h>

#include <charconv>
#include <iostream>
#include <thread>

#include "apps/worker/rank_setup.h"
#include "apps/worker/test_fault.h"
#include "apps/worker/worker_commands.h"
#include "base/filesystem_error.h"
#include "base/log.h"
#include "cluster/flight_dump.h"
#include "cluster/flight_watch.h"
#include "cluster/program_identity.h"
#include "comm/c10d_communicator.h"
#include "comm/liveness.h"
#include "comm/recorded_communicator.h"
#include "comm/same_settings.h"
#include "config/train_config.h"
#include "tensor/device.h"
#include "tensor/heap.h"
#include "train/time_account.h"
#include "train/trainer.h"

namespace penstock {
namespace {

constexpr seconds kCauseWait{8};     // until a silent death is known
constexpr seconds kGoodbyeWait{20};  // for the others to finish
constexpr milliseconds kReportWait{1000};  // for the others' flight recorders, before leaving
constexpr seconds kVerdictWait{3};   // until it is known which of the ranks that fail was the first
constexpr seconds kSpeakerTime{2};   // for that one to say why before the others leave; and for them to read who it is before rank 0 leaves, which holds the store

cluster::FlightWatchOptions flight_options(const config::TrainConfig& config, const cluster::RankInfo& info) {
  cluster::FlightWatchOptions options;
  options.folder = cluster::flight_folder(config.output);
  options.rank = info.rank;
  options.world_size = info.world_size;
  const double stuck = config.stuck_step_seconds > 0 ? config.stuck_step_seconds : config.timeout_seconds / 2;
  options.stuck_after = milliseconds(static_cast<int64_t>(1000 * stuck));
  return options;
}

// What a rank has said before it left, in the words of Liveness: "rank 2 (pid 4711 on node1) failed: TEXT".
struct LastWords {
  int rank = 0;
  std::string text;
};
std::optional<LastWords> last_words_in(const std::string& verdict) {
  constexpr std::string_view kRank = "rank ", kFailed = " failed: ";
  const size_t failed = verdict.find(kFailed);
  LastWords words;
  if (failed == std::string::npos || !verdict.starts_with(kRank)) return std::nullopt;
  std::from_chars(verdict.data() + kRank.size(), verdict.data() + failed, words.rank);
  words.text = verdict.substr(failed + kFailed.size());
  return words;
}

// This rank, and with whom it shares what it prints to.
struct Speaker {
  cluster::RankInfo info;
  bool shared_log = false;  // with the ranks of its machine

  [[nodiscard]] bool is_heard_with(int other) const { return shared_log && other / info.local_world_size == info.rank / info.local_world_size; }
  // A verdict without what another rank has said there already.
  [[nodiscard]] std::string in_short(const std::string& verdict) const {
    const auto words = last_words_in(verdict);
    return words && is_heard_with(words->rank) ? fmt::format("rank {} failed", words->rank) : verdict;
  }
};

// Of the ranks that leave: rank 0, or rank 1 when that is the one that was lost. A rank that could say why it failed needs no search for the cause.
bool has_to_report(int rank, const std::string& verdict) {
  if (last_words_in(verdict)) return false;
  return rank == (verdict.starts_with("rank 0 ") || verdict.starts_with("rank 0,") ? 1 : 0);
}

comm::LivenessOptions leave_when_a_peer_dies(const Speaker& self, cluster::FlightWatch& flight) {
  comm::LivenessOptions options;
  options.on_failure = [self, &flight](const std::string& text) {
    // The main thread may be inside a wait that nothing ends, so the process ends here.
    flight.last_words(text);
    if (has_to_report(self.info.rank, text)) flight.report(Deadline::after(kReportWait));
    std::cerr << fmt::format("\ntrain rank {}: leaving, because {}\n", self.info.rank, self.in_short(text)) << std::flush;
    _exit(kPeerFailed);
  };
  options.on_alarm = [&flight](const std::string& text) { flight.alarm(text); };
  return options;
}

// What must be alike on all ranks. A run folder may be spelled differently, machines have names and interfaces of their own and more cores or fewer, and of
// --resume and its like those of rank 0 count.
comm::Settings settings_of(const config::TrainConfig& config, int local_rank) {
  comm::Settings settings = {{"the program", fmt::format("{} (build {})", PENSTOCK_VERSION, cluster::program_build_id())}};
  settings.emplace_back("what it computes in", train::computes_in(config, local_rank));
  for (const auto& [key, value] : config::key_values(config)) {
    if (key != "output" && key != "omp_threads" && !key.starts_with("network.")) settings.emplace_back(key, value);
  }
  return settings;
}

// Stragglers and skipped steps; empty in a run without.
std::string troubles(const train::TrainSummary& s) {
  std::string text;
  for (const train::Straggler& straggler : s.stragglers) {
    text += fmt::format("  rank {} computed {:.1f} times as long as the other replicas of its stage\n", straggler.rank, straggler.factor);
  }
  const int64_t bad = s.skipped_steps - s.overflowed_steps;
  if (bad > 0) text += fmt::format("  {} steps were skipped (bad_step)\n", bad);
  if (s.overflowed_steps > 0) text += fmt::format("  {} steps were skipped, as gradients overflowed float16\n", s.overflowed_steps);
  return text;
}

// Of time and memory.
std::string whereabouts(const train::TrainSummary& s) {
  const auto mib = [](double bytes) { return bytes / (1 << 20); };
  const std::string gpu = s.memory.gpu_bytes > 0 ? fmt::format("  memory in use on the GPU {:.0f} MiB, of all its processes\n", mib(s.memory.gpu_bytes)) : "";
  return gpu + fmt::format("  memory of the largest rank {:.0f} MiB: weights {:.1f}, gradients {:.1f}, optimizer {:.1f}, the rest activations, data and programs\n"
                     "  time, mean over the ranks:\n{}",
                     mib(s.memory.peak_bytes), mib(s.memory.weight_bytes), mib(s.memory.gradient_bytes), mib(s.memory.optimizer_bytes), train::time_table(s.time));
}

void print_summary(const config::TrainConfig& config, const train::TrainSummary& s) {
  std::cout << fmt::format(
      "{} after {} steps and {:.1f} s: validation loss {:.4f} nats per byte\n"
      "  {:.0f} tokens/s, MFU {:.0f}% of the measured peak, bubble {:.1f}% ({:.1f}% on equal stages with a core each), exposed communication {:.1f}% of the step\n"
      "{}{}  model {}/model   metrics {}/metrics.jsonl   loss curve {}/loss.svg   timeline {}/timeline.json\n",
      s.stopped ? "Stopped" : "Trained", s.steps, s.seconds, s.validation_loss, s.tokens_per_second, 100 * s.mfu, 100 * s.bubble_share,
      100 * s.planned_bubble, 100 * s.exposed_share, troubles(s), whereabouts(s), config.output, config.output, config.output, config.output);
}

// A mistake that all ranks see is told once in a log.
bool is_said_by_another(comm::Liveness& liveness, const Speaker& self, const std::string& text) {
  if (!self.shared_log) return false;
  const auto first = liveness.first_failure(Deadline::after(kVerdictWait));
  const auto words = first ? last_words_in(*first) : std::nullopt;
  return words && words->rank != self.info.rank && words->text == text && self.is_heard_with(words->rank);
}

// One line, without where in LibTorch it came up.
Error brief(Code code, const std::string& text) { return error(code, "{}", text.substr(0, std::min(text.find("\nException raised from"), text.find("\nframe #")))); }

// A communication that failed is a symptom; Liveness knows the cause, and ends this process from its own thread when there is one.
[[noreturn]] void leave(comm::Liveness& liveness, cluster::FlightWatch& flight, const Error& e, const Speaker& self) {
  const bool symptom = e.code() == Code::kUnavailable || e.code() == Code::kDeadlineExceeded;
  // Whoever let a deadline pass may still be where it is stuck.
  if (e.code() == Code::kDeadlineExceeded) liveness.raise_alarm(e.message());
  else flight.last_words(e.message());
  if (symptom) {
    if (const auto cause = liveness.first_failure(Deadline::after(kCauseWait))) {
      std::cerr << fmt::format("train rank {}: leaving, because {} (seen here as: {})\n", self.info.rank, self.in_short(*cause), e.message()) << std::flush;
      _exit(kPeerFailed);
    }
  }
  if (!self.shared_log) spdlog::critical("{}", e.message());
  liveness.post_failure(e.message(), Deadline::after(seconds(5)));
  const bool said = is_said_by_another(liveness, self, e.message());
  if (self.shared_log && !said) spdlog::critical("{}", e.message());
  if (said || (self.shared_log && self.info.rank == 0 && self.info.world_size > 1)) std::this_thread::sleep_for(kSpeakerTime);
  _exit(exit_code_of(e));  // threads of the communicator may be stuck in the network: nothing is torn down
}

// The library computes it on a CPU, too, for tests.
void refuse_slow_fp16(const config::TrainConfig& config, int local_rank) {
  if (config.precision != config::Precision::kFloat16 || !tensor::find_device(config.device, local_rank).value().is_cpu()) return;
  throw error(Code::kInvalidArgument, "precision: fp16 needs a GPU, and device '{}' is the CPU, which gains nothing by it; use bf16 or fp32", config.device);
}

void train_connected(const config::TrainConfig& config, const Speaker& self, train::TrainOptions options) {
  const cluster::RankInfo& info = self.info;
  FlightRecorder recorder;
  install_test_fault(recorder, info.rank);
  const auto connect_timeout = milliseconds(static_cast<int64_t>(1000 * config.network.connect_timeout_seconds));
  const auto connected = comm::connect_c10d(info, {.connect_timeout = connect_timeout, .connect_timeout_key = "network.connect_timeout_seconds",
                                                   .operation_timeout = std::chrono::duration_cast<milliseconds>(std::chrono::hours(1)), .interface = config.network.interface,
                                                   .hostname = config.network.hostname});
  const auto world = comm::make_recorded(*connected, recorder);
  cluster::FlightWatch flight(recorder, flight_options(config, info));
  comm::Liveness liveness(info, leave_when_a_peer_dies(self, flight));
  flight.start([&liveness](const std::string& reason) { liveness.raise_alarm(reason); });
  // Note [Leaving]
  // A rank that has finished ends without tearing its groups down, while peers do the same: a heap corruption was seen once at the end of a run,
  // and this is a suspect, not a proven cause (docs/roadmap.md). The files are written, and there is nothing else to lose.
  options.on_finished = [&](const train::TrainSummary& summary) {
    if (info.rank == 0) print_summary(config, summary);
    std::cout.flush();
    liveness.post_done(Deadline::after(kGoodbyeWait));
    _exit(0);
  };
  try {
    comm::require_same_settings(*world, settings_of(config, info.local_rank), Deadline::after(connect_timeout));
    (void)train::train(config, *world, options);
  } catch (const Error& e) {
    leave(liveness, flight, brief(e.code(), e.message()), self);
  } catch (const std::filesystem::filesystem_error& e) {
    leave(liveness, flight, error_of(e), self);
  } catch (const std::exception& e) {
    leave(liveness, flight, brief(Code::kInternal, e.what()), self);
  }
}

}  // namespace

int run_train_rank(const TrainRankOptions& options) {
  try {
    const std::atomic<bool>& stop = watch_stop_signals();
    cluster::RankInfo info = this_rank();
    init_logging(fmt::format("train rank {}", info.rank));
    const config::TrainConfig config = config::load_train_config(options.config_file, options.overrides).value();
    if (config.network.master_port != 0) info.master_port = config.network.master_port;
    if (config.world_size() != info.world_size) {
      throw error(Code::kInvalidArgument, "mesh {} x {} x {} (data x pipe x tensor) needs {} ranks, the launcher started {}", config.mesh.data, config.mesh.pipe, config.mesh.tensor,
                  config.world_size(), info.world_size);
    }
    refuse_slow_fp16(config, info.local_rank);
    tensor::keep_freed_memory();
    at::set_num_threads(config.omp_threads);
    log_blas(info.rank);
    train_connected(config, {info, options.shared_log}, {options.resume, options.auto_resume, options.overwrite, options.quiet, {}, info.local_rank, &stop});
    return 0;
  } catch (const Error& e) {
    std::cerr << fmt::format("penstock-worker train: {}\n", e.message());
    return exit_code_of(e);
  }
}

}  // namespace penstock
