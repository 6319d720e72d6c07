// Load for a running front door, and what it costs: messages per second of wall time and of the server's own processor time, and, when the
// worker stamps its messages with its clock, how long each was on its way. bench/front_door starts the server and runs all modes.
#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "torchserve/inference.grpc.pb.h"
#include "worker.grpc.pb.h"

namespace penstock {
namespace {

namespace pb = org::pytorch::serve::grpc::inference;
namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;

struct Options {
  std::string mode = "stream";        // stream, unary, rest, idle, worker
  std::string host = "127.0.0.1";
  int port = 7070;
  std::string socket;                 // mode worker: of the worker itself
  std::string model = "tiny", prompt = "[clock]";
  int clients = 256, tokens = 500, threads = 1;
  double seconds = 5, warm_up = 1;
  int server = 0;                     // its process id
};

int64_t now_ns() { return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count(); }

// What all clients of a run count.
struct Counts {
  std::atomic<int64_t> messages{0}, requests{0}, failures{0};
  std::atomic<bool> measuring{false}, stopping{false};
  std::atomic<int> open{0};
  Mutex mutex;
  std::vector<float> delays_us GUARDED_BY(mutex);
  std::string first_failure GUARDED_BY(mutex);

  void failed(const std::string& why) EXCLUDES(mutex) {
    ++failures;
    MutexLock lock(mutex);
    if (first_failure.empty()) first_failure = why;
  }
  // `text`: what a message says; a number is the worker's clock in nanoseconds.
  void arrived(std::string_view text) EXCLUDES(mutex) {
    if (!measuring.load(std::memory_order_relaxed)) return;
    messages.fetch_add(1, std::memory_order_relaxed);
    int64_t sent = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), sent).ec != std::errc() || sent == 0) return;
    const auto delay = static_cast<float>(now_ns() - sent) / 1e3f;
    MutexLock lock(mutex);
    delays_us.push_back(delay);
  }
};

std::string body_of(const Options& options) {
  return fmt::format(R"({{"prompt": "{}", "max_tokens": {}}})", options.prompt, options.tokens);
}

pb::PredictionsRequest message_of(const Options& options) {
  pb::PredictionsRequest request;
  request.set_model_name(options.model);
  (*request.mutable_input())["data"] = body_of(options);
  return request;
}

// One client that streams one generation after the other.
class StreamClient final : public grpc::ClientReadReactor<pb::PredictionResponse> {
 public:
  StreamClient(pb::InferenceAPIsService::Stub& stub, const Options& options, Counts& counts)
      : stub_(stub), request_(message_of(options)), counts_(counts) {}
  void start() {
    context_ = std::make_unique<grpc::ClientContext>();
    stub_.async()->StreamPredictions(context_.get(), &request_, this);
    StartRead(&response_);
    StartCall();
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    counts_.arrived(response_.prediction());
    if (counts_.stopping.load(std::memory_order_relaxed)) context_->TryCancel();
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    if (counts_.stopping) {
      --counts_.open;
      return;
    }
    if (!status.ok()) counts_.failed(status.error_message());
    ++counts_.requests;
    (new StreamClient(stub_, request_, counts_))->start();
    delete this;
  }

 private:
  StreamClient(pb::InferenceAPIsService::Stub& stub, const pb::PredictionsRequest& request, Counts& counts)
      : stub_(stub), request_(request), counts_(counts) {}

  pb::InferenceAPIsService::Stub& stub_;
  const pb::PredictionsRequest request_;
  Counts& counts_;
  std::unique_ptr<grpc::ClientContext> context_;
  pb::PredictionResponse response_;
};

class UnaryClient {
 public:
  UnaryClient(pb::InferenceAPIsService::Stub& stub, const Options& options, Counts& counts)
      : stub_(stub), request_(message_of(options)), counts_(counts) {}
  void start() {
    context_ = std::make_unique<grpc::ClientContext>();
    stub_.async()->Predictions(context_.get(), &request_, &response_, [this](const grpc::Status& status) {
      if (counts_.stopping) {
        --counts_.open;
        return;
      }
      if (status.ok()) counts_.arrived("");
      else counts_.failed(status.error_message());
      start();
    });
  }

 private:
  pb::InferenceAPIsService::Stub& stub_;
  const pb::PredictionsRequest request_;
  Counts& counts_;
  std::unique_ptr<grpc::ClientContext> context_;
  pb::PredictionResponse response_;
};

// In the front door's place: all generations in one stream to the worker.
class WorkerClient final : public grpc::ClientBidiReactor<worker::v1::Commands, worker::v1::Events> {
 public:
  WorkerClient(const Options& options, Counts& counts)
      : options_(options),
        counts_(counts),
        stub_(worker::v1::Worker::NewStub(grpc::CreateChannel("unix:" + options.socket, grpc::InsecureChannelCredentials()))) {
    stub_->async()->Work(&context_, this);
    for (int i = 0; i < options.clients; ++i) add_generation();
    writing_ = true;
    sending_.Swap(&waiting_);
    StartWrite(&sending_);
    StartRead(&received_);
    StartCall();
  }
  void stop() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    bool write = false;
    for (const worker::v1::Event& event : received_.events()) {
      if (!event.has_end()) {
        counts_.arrived(event.generated().text());
        continue;
      }
      if (event.end().code() != 0) counts_.failed(event.end().message());
      MutexLock lock(mutex_);
      add_generation();
      if (std::exchange(writing_, true)) continue;
      sending_.Clear();
      sending_.Swap(&waiting_);
      write = true;
    }
    if (write) StartWrite(&sending_);
    StartRead(&received_);
  }
  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mutex_);
      writing_ = ok && waiting_.commands_size() > 0;
      if (!writing_) return;
      sending_.Clear();
      sending_.Swap(&waiting_);
    }
    StartWrite(&sending_);
  }
  void OnDone(const grpc::Status& status) override {
    if (!counts_.stopping) counts_.failed(status.error_message());
    counts_.open = 0;
  }

 private:
  void add_generation() {
    worker::v1::Command& command = *waiting_.add_commands();
    command.set_id(++last_id_);
    command.mutable_generate()->set_prompt(options_.prompt);
    command.mutable_generate()->mutable_sampling()->set_max_tokens(options_.tokens);
  }

  const Options& options_;
  Counts& counts_;
  const std::unique_ptr<worker::v1::Worker::Stub> stub_;
  grpc::ClientContext context_;
  worker::v1::Events received_;
  Mutex mutex_;  // reads and writes end at the same time
  worker::v1::Commands waiting_;
  worker::v1::Commands sending_;
  bool writing_ = false;
  uint64_t last_id_ = 0;
};

// One keep-alive connection that asks again as soon as it is answered; with no request it only stays open.
class RestClient {
 public:
  RestClient(asio::io_context& context, const tcp::endpoint& server, const Options& options, Counts& counts) : stream_(context), counts_(counts) {
    stream_.connect(server);
    request_.method(http::verb::post);
    request_.target("/predictions/" + options.model);
    request_.version(11);
    request_.set(http::field::host, options.host);
    request_.set(http::field::content_type, "application/json");
    request_.body() = body_of(options);
    request_.prepare_payload();
  }
  void start() {
    http::async_write(stream_, request_, [this](beast::error_code failed, size_t) {
      if (failed) return ended(failed.message());
      response_ = {};
      http::async_read(stream_, buffer_, response_, [this](beast::error_code broken, size_t) { answered(broken); });
    });
  }

 private:
  void answered(beast::error_code failed) {
    if (failed) return ended(failed.message());
    if (response_.result_int() == 200) counts_.arrived("");
    else counts_.failed(response_.body());
    if (counts_.stopping) return ended("");
    start();
  }
  void ended(const std::string& why) {
    if (!why.empty() && !counts_.stopping) counts_.failed(why);
    --counts_.open;
  }

  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  Counts& counts_;
  http::request<http::string_body> request_;
  http::response<http::string_body> response_;
};

// Of the server; 0 without one.
double processor_seconds(int pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const size_t after = text.rfind(')');
  if (after == std::string::npos) return 0;
  std::istringstream fields(text.substr(after + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0, system = 0;
  fields >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double memory_mib(int pid) {
  std::ifstream file(fmt::format("/proc/{}/statm", pid));
  double pages = 0;
  file >> pages >> pages;
  return pages * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

float at_share(const std::vector<float>& sorted, double share) { return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))]; }

void report(const Options& options, Counts& counts, double seconds, double processor, double memory_before) {
  const auto messages = static_cast<double>(counts.messages.load());
  fmt::print("{:<7} {:>4} clients  {:>9.0f} messages/s", options.mode, options.clients, messages / seconds);
  if (processor > 0) fmt::print("  {:>9.0f} per second of the server's processor time", messages / processor);
  fmt::print("  memory {:.1f} -> {:.1f} MiB", memory_before, memory_mib(options.server));
  MutexLock lock(counts.mutex);
  auto& delays = counts.delays_us;
  if (!delays.empty()) {
    std::sort(delays.begin(), delays.end());
    fmt::print("  on the way p50 {:.0f} us, p90 {:.0f}, p99 {:.0f}", at_share(delays, 0.5), at_share(delays, 0.9), at_share(delays, 0.99));
  }
  if (counts.failures > 0) fmt::print("  {} FAILED: {}", counts.failures.load(), counts.first_failure);
  fmt::print("\n");
}

void measure(const Options& options, Counts& counts, const std::function<void()>& stop = [] {}) {
  std::this_thread::sleep_for(std::chrono::duration<double>(options.warm_up));
  const double processor = processor_seconds(options.server), memory = memory_mib(options.server);
  const auto start = Clock::now();
  counts.measuring = true;
  std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
  counts.measuring = false;
  report(options, counts, to_seconds(Clock::now() - start), processor_seconds(options.server) - processor, memory);
  counts.stopping = true;
  stop();
  for (const Deadline end = Deadline::after(seconds(5)); counts.open > 0 && !end.passed();) std::this_thread::sleep_for(milliseconds(5));
}

void run_grpc(const Options& options) {
  Counts counts;
  counts.open = options.clients;
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  const auto stub = pb::InferenceAPIsService::NewStub(
      grpc::CreateCustomChannel(fmt::format("{}:{}", options.host, options.port), grpc::InsecureChannelCredentials(), arguments));
  std::vector<std::unique_ptr<UnaryClient>> unary;
  for (int i = 0; i < options.clients; ++i) {
    if (options.mode == "stream") {
      (new StreamClient(*stub, options, counts))->start();
    } else {
      unary.push_back(std::make_unique<UnaryClient>(*stub, options, counts));
      unary.back()->start();
    }
  }
  measure(options, counts);
}

void run_worker(const Options& options) {
  Counts counts;
  counts.open = 1;
  WorkerClient client(options, counts);
  measure(options, counts, [&client] { client.stop(); });
}

void run_rest(const Options& options) {
  Counts counts;
  asio::io_context context;
  const tcp::endpoint server(asio::ip::make_address(options.host), static_cast<unsigned short>(options.port));
  const double before = memory_mib(options.server);
  std::vector<std::unique_ptr<RestClient>> clients;
  for (int i = 0; i < options.clients; ++i) clients.push_back(std::make_unique<RestClient>(context, server, options, counts));
  if (options.mode == "idle") {
    std::this_thread::sleep_for(std::chrono::duration<double>(options.seconds));
    const double after = memory_mib(options.server);
    fmt::print("idle    {:>4} connections cost {:.1f} MiB of the server ({:.1f} -> {:.1f})\n", options.clients, after - before, before, after);
    return;
  }
  counts.open = options.clients;
  for (const auto& client : clients) client->start();
  std::thread thread([&] { context.run(); });
  measure(options, counts);
  context.stop();
  thread.join();
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  CLI::App app("Load for a running `penstock serve`; bench/front_door runs it in all modes");
  penstock::Options options;
  app.add_option("--mode", options.mode, "stream or unary (gRPC), rest, idle (connections that say nothing), worker (no front door)")
      ->check(CLI::IsMember({"stream", "unary", "rest", "idle", "worker"}));
  app.add_option("--host", options.host, "an IP address");
  app.add_option("--port", options.port, "of the listener");
  app.add_option("--socket", options.socket, "of a worker that has no front door, for mode worker");
  app.add_option("--model", options.model);
  app.add_option("--prompt", options.prompt, "\"[clock]\" makes the fake worker send its clock");
  app.add_option("--clients", options.clients, "that ask at the same time");
  app.add_option("--tokens", options.tokens, "of a generation");
  app.add_option("--seconds", options.seconds, "to measure");
  app.add_option("--server", options.server, "its process id, for processor time and memory");
  CLI11_PARSE(app, argc, argv);
  if (options.mode == "worker") penstock::run_worker(options);
  else options.mode == "stream" || options.mode == "unary" ? penstock::run_grpc(options) : penstock::run_rest(options);
}
