// A worker program without a model, started by `penstock serve` in place of penstock-worker (environment PENSTOCK_WORKER):
// rank 0 serves a FakeEngine (`serve`) or a FakeHandler (`torchscript`), the other ranks wait for their end.
//   FAKE_WORKER_STEP_MS=N   time of a step (default 5; fractions, too)     FAKE_WORKER_SPREAD=1  its requests are spread over it
//   FAKE_WORKER_TENSORS=1   `torchscript` is a FakeModel in place of a FakeHandler
//   FAKE_WORKER_LOAD=exit   rank 1 says why and exits with code 3     =fail  loading fails with DATA_LOSS     =hang  never ready
//                    =garbage  whoever connects gets bytes that mean nothing
//                    =leave  rank 0 stops listening while the front door waits for it, and says why and exits with code 3 a while later
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include "fake_engine.h"
#include "fake_handler.h"
#include "fake_model.h"
#include "rpc/worker_service.h"

namespace {

using namespace penstock;

std::string variable(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

// Never returns.
void serve_garbage(const std::string& path) {
  const int listener = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(listener, 8) != 0) std::abort();
  const std::string garbage(4096, '\xAA');
  for (;;) {
    const int connection = ::accept(listener, nullptr, nullptr);
    if (connection < 0) std::abort();
    (void)::send(connection, garbage.data(), garbage.size(), MSG_NOSIGNAL);
    ::close(connection);
  }
}

// Ends what waits for it before it says why, and before its own end can be seen.
int leave(rpc::WorkerService& service) {
  std::this_thread::sleep_for(milliseconds(500));
  service.shutdown(Deadline::after(milliseconds(0)));
  std::this_thread::sleep_for(milliseconds(500));
  fmt::print(stderr, "fake worker: the disk is gone\n");
  return 3;
}

// Either an engine or a handler.
int serve(const std::string& socket, const std::optional<tests::FakeEngineOptions>& options, handler::Handler* handler) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);  // before any thread: all inherit it, sigwait() below takes them
  int received = 0;

  const int rank = std::stoi(variable("RANK", "0"));
  const std::string load = variable("FAKE_WORKER_LOAD", "");
  if (load == "exit" && rank == 1) {
    fmt::print(stderr, "fake worker: tensor 'a.weight' is not there\n");
    return 3;
  }
  if (rank != 0) return sigwait(&stop, &received);
  if (load == "garbage") {
    pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
    serve_garbage(socket);
  }

  std::optional<tests::FakeEngine> engine;
  if (options) engine.emplace(*options);
  const auto service = std::move(rpc::WorkerService::start(socket)).value();
  if (load == "fail") service->set_failed(Error(Code::kDataLoss, "model.safetensors is truncated"));
  else if (load.empty() && handler) service->set_handler(*handler);
  else if (load.empty()) service->set_engine(*engine);  // "exit": like a real rank 0, never ready without the other
  if (load == "leave") return leave(*service);
  sigwait(&stop, &received);
  service->shutdown(Deadline::after(seconds(1)));
  return 0;
}

int serve_bytes(const std::string& socket, const std::string& name, int batch_size, int max_batch_delay_ms) {
  tests::FakeHandler bytes;
  tests::FakeModel model;
  handler::TensorHandlerOptions options;
  options.model = name;
  options.batch_size = static_cast<size_t>(batch_size);
  options.max_batch_delay = milliseconds(max_batch_delay_ms);
  handler::TensorHandler tensors(model, options);
  const bool wants_tensors = variable("FAKE_WORKER_TENSORS", "") == "1";
  return serve(socket, std::nullopt, wants_tensors ? static_cast<handler::Handler*>(&tensors) : &bytes);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("fake worker");
  auto* command = app.add_subcommand("serve");
  auto* bytes_command = app.add_subcommand("torchscript");
  std::string model, name, socket, dtype;
  int tensor_ranks = 1;
  tests::FakeEngineOptions options;
  command->add_option("--model", model)->required();
  command->add_option("--socket", socket)->required();
  command->add_option("--dtype", dtype)->required()->check(CLI::IsMember({"auto", "fp32", "bf16"}));  // as penstock-worker
  command->add_option("--max-concurrent", options.max_concurrent)->required();
  command->add_option("--tensor-ranks", tensor_ranks);
  command->add_option("--max-sequence-tokens", options.max_sequence_tokens);
  int batch_size = 0, max_batch_delay_ms = 0;
  bytes_command->add_option("--model", model)->required();
  bytes_command->add_option("--name", name)->required();
  bytes_command->add_option("--socket", socket)->required();
  bytes_command->add_option("--batch-size", batch_size)->required();
  bytes_command->add_option("--max-batch-delay-ms", max_batch_delay_ms)->required();
  CLI11_PARSE(app, argc, argv);
  if (bytes_command->parsed()) return serve_bytes(socket, name, batch_size, max_batch_delay_ms);
  options.step = std::chrono::microseconds(static_cast<int64_t>(1000 * std::stod(variable("FAKE_WORKER_STEP_MS", "5"))));
  options.spread = variable("FAKE_WORKER_SPREAD", "") == "1";
  return serve(socket, options, nullptr);
}
