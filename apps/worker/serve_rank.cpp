#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <utility>

#include "apps/worker/rank_setup.h"
#include "apps/worker/worker_commands.h"
#include "base/log.h"
#include "comm/c10d_communicator.h"
#include "engine/pipeline_engine.h"
#include "engine/rank_groups.h"
#include "engine/stage_loop.h"
#include "rpc/worker_service.h"
#include "tensor/cpu_features.h"
#include "tensor/device.h"

namespace penstock {
namespace {

constexpr seconds kLoadDeadline{1800};  // the front door's startupTimeout is shorter, and ends the process
constexpr seconds kConnectDeadline{120};
constexpr seconds kStepTimeout{60};
constexpr seconds kDrainTime{30};

// Tells whoever started this how far the first stage is: percent, as text, in the file SOCKET.loading.
class LoadProgress {
 public:
  explicit LoadProgress(const std::string& socket) : file_(socket + ".loading") {}
  ~LoadProgress() { std::remove(file_.c_str()); }
  LoadProgress(const LoadProgress&) = delete;
  LoadProgress& operator=(const LoadProgress&) = delete;

  void update(double share) {
    const int percent = static_cast<int>(100 * share);
    if (std::exchange(shown_, percent) != percent) std::ofstream(file_) << percent;
  }

 private:
  const std::string file_;
  int shown_ = -1;
};

// This process's place among the ranks that serve the model.
struct Place {
  explicit Place(const ServeRankOptions& options, const cluster::RankInfo& info)
      : world(comm::connect_c10d(info)), groups(engine::make_rank_groups(*world, options.tensor_ranks, Deadline::after(kConnectDeadline))) {
    if (groups.tensor) tensor.emplace(*groups.tensor, kStepTimeout);
  }
  [[nodiscard]] int stage() const { return groups.mesh.coordinates(world->rank()).pipe; }
  // It chooses the tokens, for which constrained texts need the tokenizer.
  [[nodiscard]] bool samples() const { return groups.leads() && stage() == groups.mesh.pipe - 1; }
  // All have their weights. How long that takes is the caller's limit.
  void wait_until_all_are_loaded() { world->barrier()->wait(Deadline::after(kLoadDeadline)); }

  const std::unique_ptr<comm::Communicator> world;
  const engine::RankGroups groups;
  std::optional<model::TensorRanks> tensor;
};

engine::StageOptions stage_options(const ServeRankOptions& options, const Place& place, const cluster::RankInfo& info) {
  engine::StageOptions stage;
  stage.device = tensor::find_device(options.device, info.local_rank).value();
  const bool bf16 = options.dtype == "bf16" || (options.dtype == "auto" && (stage.device.is_cuda() || tensor::has_bf16()));
  stage.model = options.model;
  stage.stage = place.stage();
  stage.num_stages = place.groups.mesh.pipe;
  stage.tensor = place.tensor ? &*place.tensor : nullptr;
  stage.max_sequences = options.max_concurrent;
  stage.max_sequence_tokens = options.max_sequence_tokens;
  stage.compute = bf16 ? kernels::Compute::kBf16 : kernels::Compute::kFp32;
  stage.kv_cache_bytes = int64_t{options.kv_cache_mb} << 20;
  stage.kv_cache_bf16 = options.kv_cache_dtype == "bf16";
  stage.quantization = model::quantization(options.quantization);
  return stage;
}

// Returns when a signal asked for the end or the engine has failed.
void serve_until_stopped(rpc::WorkerService& service, engine::PipelineEngine& engine, const std::atomic<bool>& stop) {
  while (!stop) {
    if (const auto failure = engine.wait_for_failure(Deadline::after(milliseconds(100)))) throw *failure;
  }
  spdlog::info("asked to stop: finishing what runs");
  engine.drain();
  service.shutdown(Deadline::after(kDrainTime));
}

void serve_first_stage(const ServeRankOptions& options, const cluster::RankInfo& info, const std::atomic<bool>& stop) {
  std::optional<Place> joined;  // these outlive the service, whose calls use the engine
  std::optional<engine::StageRunner> loaded;
  std::optional<engine::PipelineEngine> engine;
  const auto service = rpc::WorkerService::start(options.socket).value();
  try {
    text::Tokenizer tokenizer = text::Tokenizer::load(options.model).value();
    Place& place = joined.emplace(options, info);
    engine::StageOptions stage = stage_options(options, place, info);
    if (place.samples()) stage.tokenizer = tokenizer;
    LoadProgress progress(options.socket);
    stage.on_progress = [&](double share) { progress.update(share); };
    engine::StageRunner& runner = loaded.emplace(stage);
    if (tokenizer.vocab_size() > runner.config().vocab_size) {
      throw error(Code::kInvalidArgument, "{}: tokenizer.json has {} tokens, config.json a vocab_size of {}", options.model, tokenizer.vocab_size(),
                  runner.config().vocab_size);
    }
    place.wait_until_all_are_loaded();
    engine::PipelineEngineOptions engine_options;
    engine_options.max_sequences = options.max_concurrent;
    engine_options.timeout = kStepTimeout;
    engine.emplace(runner, *place.groups.stages, std::move(tokenizer), engine_options);
    service->set_engine(*engine);
    spdlog::info("serving {} in {} stages of {} ranks, on {}", options.model, place.groups.mesh.pipe, place.groups.mesh.tensor, stage.device.str());
    serve_until_stopped(*service, *engine, stop);
  } catch (const Error& e) {
    service->set_failed(e);
    service->shutdown(Deadline::after(seconds(2)));  // WaitReady and running calls get the reason
    throw;
  }
}

// The other ranks notice at once that this process has ended, and its log has the reason.
void leave(const Error& failure) {
  spdlog::critical("{}", failure.message());
  ::_exit(exit_code_of(failure));
}

void serve_other_rank(const ServeRankOptions& options, const cluster::RankInfo& info) {
  Place place(options, info);
  engine::StageOptions stage = stage_options(options, place, info);
  if (place.samples()) stage.tokenizer = text::Tokenizer::load(options.model).value();
  engine::StageRunner runner(stage);
  place.wait_until_all_are_loaded();
  if (place.groups.leads()) {
    engine::run_stage(runner, *place.groups.stages, options.max_concurrent, kStepTimeout, leave);
  } else {
    engine::follow_stage(runner, options.max_concurrent, kStepTimeout);
  }
}

}  // namespace

int run_serve_rank(const ServeRankOptions& options) {
  try {
    const std::atomic<bool>& stop = watch_stop_signals();  // other ranks leave when the first one says so
    const cluster::RankInfo info = this_rank();
    init_logging(fmt::format("serve rank {}", info.rank));
    log_blas(info.rank);
    if (info.rank == 0) {
      serve_first_stage(options, info, stop);
    } else {
      serve_other_rank(options, info);
    }
    return 0;
  } catch (const Error& e) {
    spdlog::critical("{}", e.message());
    return exit_code_of(e);
  } catch (const std::exception& e) {
    spdlog::critical("{}", e.what());
    return 1;
  }
}

}  // namespace penstock
