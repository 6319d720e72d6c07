// `penstock generate`: streams a completion from a running server into the terminal.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "commands.h"
#include "rpc/generate_client.h"
#include "rpc/grpc_server.h"
#include "server_address.h"
#include "stop_signals.h"

namespace penstock {
namespace {

struct GenerateOptions {
  ServerOptions server;
  std::string model;
  std::string prompt;
  std::optional<int> max_tokens;
  std::optional<double> temperature;
  std::optional<int> top_k;
  std::optional<double> top_p;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  bool raw = false;
};

// The JSON object of input key "data"; what is not given is left to the server.
std::string request_data(const GenerateOptions& options) {
  nlohmann::json data = {{"prompt", options.prompt}};
  if (options.max_tokens) data["max_tokens"] = *options.max_tokens;
  if (options.temperature) data["temperature"] = *options.temperature;
  if (options.top_k) data["top_k"] = *options.top_k;
  if (options.top_p) data["top_p"] = *options.top_p;
  if (options.seed) data["seed"] = *options.seed;
  if (!options.stop.empty()) data["stop"] = options.stop;
  return data.dump(-1, ' ', false, nlohmann::json::error_handler_t::strict);
}

void print_piece(std::string_view text, bool raw) {
  if (raw) {
    // A JSON string: a message with a line feed is still one line.
    fmt::print("{}\n", nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    std::fwrite(text.data(), 1, text.size(), stdout);
  }
  std::fflush(stdout);
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void print_summary(const rpc::StreamSummary& summary, const std::vector<double>& gaps_ms) {
  const int tokens = summary.finished ? summary.finished->completion_tokens : summary.messages;
  std::string line = fmt::format("{} {}", tokens, summary.finished ? "tokens" : "messages");
  if (summary.first_message) {
    const double rest = to_seconds(summary.total - *summary.first_message);
    if (tokens > 1 && rest > 0) line += fmt::format(" · {:.1f} {}/s", (tokens - 1) / rest, summary.finished ? "tokens" : "messages");
    line += fmt::format(" · first after {:.0f} ms", to_seconds(*summary.first_message) * 1e3);
  }
  if (summary.finished && !gaps_ms.empty()) {
    line += fmt::format(" · {:.2f} ms a token (engine step {:.2f} ms)", median(gaps_ms), summary.finished->median_step_ms);
  }
  if (summary.finished) line += fmt::format(" · ended by {}", summary.finished->reason);
  const bool colour = ::isatty(STDERR_FILENO) != 0;
  fmt::print(stderr, "{}{}{}\n", colour ? "\033[2m" : "", line, colour ? "\033[0m" : "");
}

// Cancels the call when Ctrl-C comes. The destructor ends the watch.
class CancelOnSignal {
 public:
  explicit CancelOnSignal(rpc::GenerateClient& client)
      : thread_([this, &client] {
          while (!done_.load()) {
            if (!signals_.wait(1, Deadline::after(milliseconds(100)))) continue;
            client.cancel();
            return;
          }
        }) {}
  ~CancelOnSignal() {
    done_ = true;
    thread_.join();
  }
  [[nodiscard]] bool came() const { return signals_.count() > 0; }

 private:
  const StopSignals signals_;
  std::atomic<bool> done_{false};
  std::thread thread_;  // last: it uses the members above
};

[[noreturn]] void explain(const GenerateOptions& options, const Error& failure, bool connected) {
  if (connected || failure.code() != Code::kUnavailable) fail("generate", Error(failure.code(), failure.message()));
  fail("generate", error(Code::kUnavailable,
                         "{}; start one with\n  penstock serve --models {}=MODEL_FOLDER\nor say where it is with --address HOST:PORT",
                         failure.message(), options.model));
}

void generate(const GenerateOptions& options) {
  rpc::route_grpc_log();
  std::string data;
  try {
    data = request_data(options);
  } catch (const nlohmann::json::exception&) {
    fail("generate", Error(Code::kInvalidArgument, "--prompt or --stop: expected UTF-8 text"));
  }
  std::optional<rpc::ServerAddress> server;
  try {
    server = server_address(options.server);
  } catch (const Error& wrong) {
    fail("generate", wrong);
  }
  rpc::GenerateClient client(*server);
  const CancelOnSignal on_signal(client);
  bool ends_with_newline = true;
  bool any = false;
  std::vector<double> gaps_ms;  // between messages
  Clock::time_point last{};
  const auto on_text = [&](std::string_view text) {
    const auto now = Clock::now();
    if (any) gaps_ms.push_back(1e3 * to_seconds(now - last));
    last = now;
    any = true;
    if (!text.empty()) ends_with_newline = text.back() == '\n';
    print_piece(text, options.raw);
    if (std::ferror(stdout)) client.cancel();  // the reader of our output has gone
  };
  const auto summary = client.stream({options.model, "", std::move(data)}, Deadline::after(seconds(5)), on_text);
  if (!options.raw && !ends_with_newline) print_piece("\n", false);
  if (on_signal.came()) throw CLI::RuntimeError(130);
  if (!summary) explain(options, summary.error(), any || !summary.error().message().starts_with("no server answers"));
  print_summary(summary.value(), gaps_ms);
}

}  // namespace

void add_generate_command(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  auto* command = app.add_subcommand("generate", "Stream a completion from a running server into the terminal");
  command->add_option("--model", options->model, "Name of the model, as the server calls it")->required();
  command->add_option("--prompt", options->prompt, "The text to continue")->required();
  add_server_options(*command, options->server);
  command->add_option("--max-tokens", options->max_tokens, "At most so many tokens");
  command->add_option("--temperature", options->temperature, "0 = always the likeliest token, 1 = as the model says, up to 2");
  command->add_option("--top-k", options->top_k, "Choose among the k likeliest tokens; 0 = all");
  command->add_option("--top-p", options->top_p, "Choose among the likeliest tokens that together have probability p");
  command->add_option("--seed", options->seed, "The same seed gives the same text");
  command->add_option("--stop", options->stop, "End before this text; may be given several times")->allow_extra_args(false);
  command->add_flag("--raw", options->raw, "One line for each message of the stream, as a JSON string");
  command->footer("Examples:\n"
                  "  penstock generate --model tiny --prompt \"Once upon a time\"\n"
                  "  penstock generate --model tiny --prompt \"2 + 2 =\" --temperature 0 --max-tokens 8\n"
                  "Text goes to stdout, the summary to stderr. Ctrl-C cancels the request; the server stops its work at once.");
  command->callback([options] { generate(*options); });
}

}  // namespace penstock
