#include "apps/worker/torchscript_rank.h"

#include <thread>

#include "apps/worker/jit_model.h"
#include "apps/worker/rank_setup.h"
#include "base/log.h"
#include "handler/tensor_handler.h"
#include "rpc/worker_service.h"

namespace penstock {
namespace {

constexpr milliseconds kLookUp{100};
constexpr seconds kDrainTime{30};
constexpr seconds kAnswerTime{2};  // for the last answers of a model that is broken

void serve(const TorchscriptOptions& options, const std::atomic<bool>& stop) {
  std::unique_ptr<handler::TensorModel> model;
  std::unique_ptr<handler::TensorHandler> tensors;  // both before the service, which uses them
  const auto service = rpc::WorkerService::start(options.socket).value();
  auto loaded = load_jit_model(options.model);
  if (!loaded) {
    service->set_failed(loaded.error());
    service->shutdown(Deadline::after(seconds(2)));  // WaitReady gets the reason
    throw loaded.error();
  }
  model = std::move(*loaded);
  handler::TensorHandlerOptions handler_options;
  handler_options.model = options.name;
  handler_options.batch_size = static_cast<size_t>(options.batch_size);
  handler_options.max_batch_delay = milliseconds(options.max_batch_delay_ms);
  tensors = std::make_unique<handler::TensorHandler>(*model, handler_options);
  service->set_handler(*tensors);
  spdlog::info("serving {}", options.model);
  while (!stop && !model->broken()) std::this_thread::sleep_for(kLookUp);
  if (model->broken()) {
    service->shutdown(Deadline::after(kAnswerTime));
    throw Error(Code::kUnavailable, "the device has failed: this process ends, for another to start anew");
  }
  tensors->drain();
  service->shutdown(Deadline::after(kDrainTime));
}

}  // namespace

int run_torchscript_rank(const TorchscriptOptions& options) {
  try {
    const std::atomic<bool>& stop = watch_stop_signals();
    init_logging("torchscript");
    serve(options, stop);
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
