#include <ATen/Parallel.h>
#include <unistd.h>

#include <iostream>

#include "apps/worker/rank_setup.h"
#include "apps/worker/worker_commands.h"
#include "base/log.h"
#include "comm/c10d_communicator.h"
#include "comm/liveness.h"
#include "config/train_config.h"
#include "tensor/heap.h"
#include "train/trainer.h"

namespace penstock {
namespace {

constexpr seconds kCauseWait{8};     // until a silent death is known
constexpr seconds kGoodbyeWait{20};  // for the others to finish

comm::LivenessOptions leave_when_a_peer_dies(int rank) {
  comm::LivenessOptions options;
  options.on_failure = [rank](const std::string& text) {
    // The main thread may be inside a wait that nothing ends, so the process ends here.
    std::cerr << fmt::format("\ntrain rank {}: leaving, because {}\n", rank, text) << std::flush;
    _exit(kPeerFailed);
  };
  return options;
}

void print_summary(const config::TrainConfig& config, const train::TrainSummary& s) {
  std::cout << fmt::format(
      "{} after {} steps and {:.1f} s: validation loss {:.4f} nats per byte\n"
      "  {:.0f} tokens/s, MFU {:.0f}% of the measured peak, bubble {:.1f}% ({:.1f}% on equal stages with a core each), exposed communication {:.1f}% of the step\n"
      "  model {}/model   metrics {}/metrics.jsonl   loss curve {}/loss.svg   timeline {}/timeline.json\n",
      s.stopped ? "Stopped" : "Trained", s.steps, s.seconds, s.validation_loss, s.tokens_per_second, 100 * s.mfu, 100 * s.bubble_share,
      100 * s.planned_bubble, 100 * s.exposed_share, config.output, config.output, config.output, config.output);
}

// A communication that failed is a symptom; Liveness knows the cause, and ends this process from its own thread when there is one.
[[noreturn]] void leave(comm::Liveness& liveness, const Error& e, int rank) {
  const bool symptom = e.code() == Code::kUnavailable || e.code() == Code::kDeadlineExceeded;
  if (symptom) {
    if (const auto cause = liveness.first_failure(Deadline::after(kCauseWait))) {
      std::cerr << fmt::format("train rank {}: leaving, because {} (seen here as: {})\n", rank, *cause, e.message()) << std::flush;
      _exit(kPeerFailed);
    }
  }
  spdlog::critical("{}", e.message());
  liveness.post_failure(e.message(), Deadline::after(seconds(5)));
  _exit(exit_code_of(e));  // threads of the communicator may be stuck in the network: nothing is torn down
}

void train_connected(const config::TrainConfig& config, const cluster::RankInfo& info, train::TrainOptions options) {
  const auto world = comm::connect_c10d(info, {.operation_timeout = std::chrono::duration_cast<milliseconds>(std::chrono::hours(1)), .interface = {}, .hostname = {}});
  comm::Liveness liveness(info, leave_when_a_peer_dies(info.rank));
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
    (void)train::train(config, *world, options);
  } catch (const Error& e) {
    leave(liveness, e, info.rank);
  } catch (const std::exception& e) {
    leave(liveness, error(Code::kInternal, "{}", e.what()), info.rank);
  }
}

}  // namespace

int run_train_rank(const TrainRankOptions& options) {
  try {
    const std::atomic<bool>& stop = watch_stop_signals();
    const cluster::RankInfo info = this_rank();
    init_logging(fmt::format("train rank {}", info.rank));
    const config::TrainConfig config = config::load_train_config(options.config_file, options.overrides).value();
    if (config.world_size() != info.world_size) {
      throw error(Code::kInvalidArgument, "mesh {} x {} needs {} ranks, the launcher started {}", config.mesh.data, config.mesh.pipe,
                  config.world_size(), info.world_size);
    }
    tensor::keep_freed_memory();
    at::set_num_threads(config.omp_threads);
    log_blas(info.rank);
    train_connected(config, info, {options.resume, options.auto_resume, options.overwrite, options.quiet, {}, &stop});
    return 0;
  } catch (const Error& e) {
    std::cerr << fmt::format("penstock-worker train: {}\n", e.message());
    return exit_code_of(e);
  }
}

}  // namespace penstock
