// penstock-handler: the worker process of a handler in a shared library. `penstock serve` starts it. Without LibTorch.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "base/log.h"
#include "handler/native_library.h"
#include "rpc/grpc_server.h"
#include "rpc/worker_service.h"

namespace penstock {
namespace {

constexpr seconds kDrainTime{30};
constexpr int kBadInput = 2;  // exit code of what will never work

int serve(const handler::NativeLibraryOptions& options, const std::string& socket) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);  // before any thread: all inherit it, sigwait() below takes them
  init_logging("handler");
  rpc::route_grpc_log();
  std::unique_ptr<handler::NativeLibrary> library;  // before the service, which uses it
  const auto service = rpc::WorkerService::start(socket).value();
  auto opened = handler::NativeLibrary::open(options);
  if (!opened) {
    service->set_failed(opened.error());
    service->shutdown(Deadline::after(seconds(2)));  // WaitReady gets the reason
    throw opened.error();
  }
  library = std::move(*opened);
  service->set_handler(*library);
  spdlog::info("serving {} by {}", options.model, options.library.string());
  int received = 0;
  sigwait(&stop, &received);
  library->drain();
  service->shutdown(Deadline::after(kDrainTime));
  return 0;
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  using namespace penstock;
  CLI::App app("The worker of a handler in a shared library. People start `penstock serve`, which starts this.");
  handler::NativeLibraryOptions options;
  std::string socket;
  app.add_option("--library", options.library, "the handler, NAME.so")->required();
  app.add_option("--model", options.model_folder, "the model's folder")->required();
  app.add_option("--name", options.model, "the model's name")->required();
  app.add_option("--max-concurrent", options.max_concurrent, "requests that it takes at once")->check(CLI::Range(1, 4096));
  app.add_option("--socket", socket, "unix socket on which it answers the front door")->required();
  CLI11_PARSE(app, argc, argv);
  try {
    return serve(options, socket);
  } catch (const Error& failure) {
    spdlog::critical("{}", failure.message());
    return failure.code() == Code::kInvalidArgument ? kBadInput : 1;
  }
}
