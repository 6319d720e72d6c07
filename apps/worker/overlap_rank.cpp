#include <ATen/Parallel.h>

#include <iostream>

#include "apps/worker/rank_setup.h"
#include "apps/worker/worker_commands.h"
#include "cluster/launch_env.h"
#include "comm/run_job.h"
#include "tensor/heap.h"
#include "train/overlap.h"

namespace penstock {
namespace {

void print(const config::TrainConfig& config, const train::OverlapReport& r) {
  fmt::print("{} replicas x {} stages, {:.1f} MB of gradients a rank\n", config.mesh.data, config.mesh.pipe, static_cast<double>(r.bytes) * 1e-6);
  fmt::print("  a step without reduction            {:8.1f} ms\n", r.without_us * 1e-3);
  fmt::print("  reduced after the backward passes   {:+8.1f} ms\n", r.communication_us * 1e-3);
  fmt::print("  reduced while they run              {:+8.1f} ms\n", r.exposed_us * 1e-3);
  fmt::print("  hidden: {:.1f} % of the communication; exposed by timestamps: {:.1f} % of the step\n", 100 * r.hidden_share(), 100 * r.by_timestamps);
}

}  // namespace

int run_overlap_rank(const OverlapRankOptions& options) {
  try {
    const config::TrainConfig config = config::load_train_config(options.config_file, options.overrides).value();
    tensor::keep_freed_memory();
    at::set_num_threads(config.omp_threads);
    train::OverlapOptions overlap;
    overlap.link.bytes_per_second = options.link_gigabytes * 1e9;
    overlap.link.latency = microseconds(static_cast<int64_t>(options.link_latency_us));
    overlap.steps = options.steps;
    const auto launched = cluster::rank_from_environment().value();
    comm::run_job(config.world_size(), [&](comm::Communicator& world) {
      train::OverlapOptions mine = overlap;
      mine.local_rank = launched ? launched->local_rank : world.rank();
      const train::OverlapReport report = train::measure_overlap(config, world, mine);
      if (world.rank() == 0) print(config, report);
    });
    return 0;
  } catch (const Error& e) {
    std::cerr << fmt::format("penstock-worker overlap: {}\n", e.message());
    return exit_code_of(e);
  }
}

}  // namespace penstock
