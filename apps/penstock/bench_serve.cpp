// `penstock bench serve`: how fast a running server answers under load.
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/mutex.h"
#include "base/progress_line.h"
#include "commands.h"
#include "rpc/grpc_server.h"
#include "rpc/load_client.h"
#include "server_address.h"
#include "stop_signals.h"

namespace penstock {
namespace {

struct LoadOptions {
  ServerOptions server;
  rpc::LoadSampling sampling;
  int requests = 100;
  int warm_up = 0;
  double rate = 0;
  int concurrency = 0;
  int connections = 1;
  int prompt_tokens = 128;
  int vocabulary = 256;
  int max_tokens = 64;
  std::string prompts;
  uint64_t seed = 1;
  double timeout = 600;
  std::vector<double> percentiles = {50, 90, 99};
  std::vector<std::string> goals;
  bool json = false;
  bool quiet = false;
};

// "ttft:500", in milliseconds.
rpc::LoadGoals parse_goals(const std::vector<std::string>& texts) {
  rpc::LoadGoals goals;
  for (const std::string& text : texts) {
    const size_t colon = text.find(':');
    const std::string name = text.substr(0, colon);
    double* goal = name == "ttft" ? &goals.ttft : name == "tpot" ? &goals.tpot : name == "e2el" ? &goals.e2el : nullptr;
    double milliseconds = 0;
    const bool is_number = colon != std::string::npos && CLI::detail::lexical_cast(text.substr(colon + 1), milliseconds);
    if (!goal || !is_number || !(milliseconds > 0)) {
      throw error(Code::kInvalidArgument, "--goodput: expected ttft:MS, tpot:MS or e2el:MS, found '{}'", text);
    }
    *goal = milliseconds / 1e3;
  }
  return goals;
}

std::vector<rpc::LoadPrompt> make_prompts(const LoadOptions& options, size_t count) {
  constexpr size_t kMaxBytes = 256 << 20;
  if (options.prompts.empty()) return rpc::random_prompts(count, options.prompt_tokens, options.vocabulary, options.max_tokens, options.seed);
  return rpc::prompts_of_file(read_file(options.prompts, kMaxBytes).value(), options.prompts, count, options.max_tokens).value();
}

// Sends prompts at their times and gathers what becomes of them.
class LoadRun {
 public:
  LoadRun(rpc::LoadClient& client, const LoadOptions& options, const StopSignals& signals) : client_(client), options_(options), signals_(signals) {}

  // false: a signal has ended it.
  bool run(const std::vector<rpc::LoadPrompt>& prompts, const std::vector<double>& times, ProgressLine* progress) {
    const auto begin = Clock::now();
    const int most = options_.concurrency > 0 ? options_.concurrency : static_cast<int>(prompts.size());
    for (size_t i = 0; i < prompts.size(); ++i) {
      const auto when = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(times[i]));
      if (!wait([&] { return Clock::now() >= when; }, when, most - 1, prompts.size(), progress)) return false;
      {
        MutexLock lock(mutex_);
        ++sent_;
      }
      const auto timeout = std::chrono::duration_cast<milliseconds>(std::chrono::duration<double>(options_.timeout));
      client_.send(prompts[i], Deadline::after(timeout), [this](rpc::LoadResult result) { take(std::move(result)); });
    }
    return wait([] { return true; }, Clock::now(), 0, prompts.size(), progress);
  }
  std::vector<rpc::LoadResult> results() {
    MutexLock lock(mutex_);
    return results_;
  }

 private:
  void take(rpc::LoadResult result) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    results_.push_back(std::move(result));
    changed_.notify_all();
  }

  // Until its time has come and at most `running` requests run; each of those ends by its deadline.
  template <typename IsTime>
  bool wait(const IsTime& is_time, Clock::time_point when, int running, size_t count, ProgressLine* progress) EXCLUDES(mutex_) {
    for (;;) {
      size_t done = 0;
      {
        MutexLock lock(mutex_);
        const auto slice = Clock::now() + milliseconds(100);
        const bool has_room = static_cast<int>(sent_ - results_.size()) <= running;
        if (is_time() && has_room) return true;
        changed_.wait(mutex_, Deadline::at(has_room ? std::min(slice, when) : slice));
        done = results_.size();
      }
      if (progress) progress->update(static_cast<double>(done) / static_cast<double>(count), fmt::format("{} of {} requests", done, count));
      if (signals_.count() > 0) return stop();
    }
  }

  bool stop() {
    client_.cancel_all();
    MutexLock lock(mutex_);
    while (results_.size() < sent_) changed_.wait(mutex_, Deadline::never());  // cancelled calls end
    return false;
  }

  rpc::LoadClient& client_;
  const LoadOptions& options_;
  const StopSignals& signals_;
  Mutex mutex_;
  CondVar changed_;
  size_t sent_ GUARDED_BY(mutex_) = 0;
  std::vector<rpc::LoadResult> results_ GUARDED_BY(mutex_);
};

void bench_serve(const LoadOptions& options) {
  rpc::route_grpc_log();
  const rpc::LoadGoals goals = parse_goals(options.goals);
  const auto count = static_cast<size_t>(options.requests), warm_up = static_cast<size_t>(options.warm_up);
  auto prompts = make_prompts(options, count + warm_up);
  const std::vector<rpc::LoadPrompt> first(prompts.begin(), prompts.begin() + static_cast<std::ptrdiff_t>(warm_up));
  prompts.erase(prompts.begin(), prompts.begin() + static_cast<std::ptrdiff_t>(warm_up));

  rpc::LoadClient client(server_address(options.server), options.sampling, options.connections);
  if (!client.connect(Deadline::after(seconds(5)))) {
    throw error(Code::kUnavailable, "no server answers at {}; start one with\n  penstock serve --models {}=MODEL_FOLDER\nor say where it is with --address HOST:PORT",
                options.server.address, options.sampling.model);
  }
  const StopSignals signals;
  if (!LoadRun(client, options, signals).run(first, std::vector<double>(warm_up, 0.0), nullptr)) throw CLI::RuntimeError(130);
  LoadRun run(client, options, signals);
  bool finished = false;
  {
    std::optional<ProgressLine> progress;
    if (!options.quiet) progress.emplace(std::cerr, ProgressLine::for_stderr());
    finished = run.run(prompts, rpc::arrival_seconds(count, options.rate, options.seed), progress ? &*progress : nullptr);
  }
  const rpc::LoadReport report = rpc::make_load_report(run.results(), options.percentiles, goals);
  fmt::print("{}", options.json ? rpc::load_json(report, goals) : rpc::load_table(report, goals));
  if (!finished) throw CLI::RuntimeError(130);
  if (report.completed == 0) throw CLI::RuntimeError(1);
}

}  // namespace

void add_bench_serve(CLI::App& bench) {
  auto options = std::make_shared<LoadOptions>();
  auto* command = bench.add_subcommand("serve", "How fast a running server answers under load (penstock.v1.Generate over gRPC)");
  command->add_option("--model", options->sampling.model, "Name of the model, as the server calls it")->required();
  command->add_option("--model-version", options->sampling.version, "Its version; without it the default one");
  add_server_options(*command, options->server);
  command->add_option("--requests", options->requests, "Requests that are measured")->check(CLI::Range(1, 10000000))->capture_default_str();
  command->add_option("--warm-up", options->warm_up, "Requests that are sent before, and not measured")->check(CLI::Range(0, 1000000))->capture_default_str();
  command->add_option("--rate", options->rate, "Requests a second, at random times (Poisson); 0 = all at once")->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_option("--concurrency", options->concurrency, "At most so many requests at once; 0 = any number")->check(CLI::Range(0, 1000000))->capture_default_str();
  command->add_option("--connections", options->connections, "Connections that share the requests")->check(CLI::Range(1, 1024))->capture_default_str();
  command->add_option("--prompt-tokens", options->prompt_tokens, "Tokens of each prompt, at random")->check(CLI::Range(1, 1 << 20))->capture_default_str();
  command->add_option("--vocabulary", options->vocabulary, "Random tokens are less than this; at most the model's vocabulary")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  command->add_option("--prompts", options->prompts, "Prompts of a file in place of random ones: a text on each line, or {\"prompt\": ..., \"max_tokens\": ...}")->type_name("FILE");
  command->add_option("--max-tokens", options->max_tokens, "At most so many tokens of each answer")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  command->add_flag("--ignore-eos", options->sampling.ignore_eos, "The token that ends a text does not: every answer has --max-tokens");
  command->add_option("--temperature", options->sampling.temperature, "0 = always the likeliest token")->check(CLI::Range(0.0, 2.0))->capture_default_str();
  command->add_option("--seed", options->seed, "Of prompts and times: the same seed sends the same")->capture_default_str();
  command->add_option("--timeout", options->timeout, "Seconds that one request may take")->check(CLI::Range(0.001, 1e6))->capture_default_str();
  command->add_option("--percentiles", options->percentiles, "Which ones are told")->delimiter(',')->check(CLI::Range(0.0, 100.0))->capture_default_str();
  command->add_option("--goodput", options->goals, "Count requests that keep a goal, in milliseconds; may be given several times")->type_name("ttft|tpot|e2el:MS")->allow_extra_args(false);
  command->add_flag("--json", options->json, "One JSON object, with the names of vLLM's benchmark, in place of the table");
  command->add_flag("--quiet", options->quiet, "No progress line");
  command->footer("Definitions are vLLM's: ttft, from sending to the first token; tpot, (e2el - ttft) / (tokens - 1) of each request; itl, between two messages; e2el,\n"
                  "from sending to the last token. Failed requests are counted by the name of their error, and are in no other figure.\n"
                  "Examples:\n"
                  "  penstock bench serve --model tiny --requests 200 --concurrency 16\n"
                  "  penstock bench serve --model tiny --rate 4 --prompt-tokens 512 --max-tokens 128 --ignore-eos --goodput ttft:500 --goodput tpot:50\n"
                  "  penstock bench serve --model tiny --prompts questions.txt --json > result.json\n"
                  "Exit code: 0; 1 when no request succeeded; 2 for wrong options; 130 after Ctrl-C, which ends what runs and tells what was measured.");
  command->callback([options] {
    try {
      bench_serve(*options);
    } catch (const Error& failure) {
      fail("bench serve", failure);
    }
  });
}

}  // namespace penstock
