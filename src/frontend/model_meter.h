#pragma once
// What one version of a model counts about its requests; its job queue tells it.
#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/metrics.h"

namespace penstock::frontend {

class MetricLines;
struct FinishedInfo;

enum class Protocol { kGrpc, kHttp };
inline constexpr size_t kNumProtocols = 2;

// Threads: every method from any thread. message() and token() cost two atomic additions each and take no lock.
class ModelMeter {
 public:
  // Of one protocol; in seconds.
  struct Times {
    std::shared_ptr<Histogram> queue;          // submitted until a worker takes it
    std::shared_ptr<Histogram> first_message;  // submitted until the worker's first message
    std::shared_ptr<Histogram> between;        // one message until the next one
    std::shared_ptr<Histogram> total;          // submitted until the end
    std::shared_ptr<Counter> ok;               // ended as they should
  };
  // What is counted of a model that generates text, under vLLM's names; in seconds and tokens.
  struct Text {
    std::shared_ptr<Histogram> first_token, between_tokens, total, prompt_length, length;
    std::shared_ptr<Counter> prompt_tokens, tokens, stopped, at_limit, aborted;
  };
  // What is counted under TorchServe's names.
  struct TorchServe {
    std::shared_ptr<Counter> requests, latency_us, queue_us;
    std::shared_ptr<Gauge> queue_ms, dispatch_ms, worker_ms, handler_ms;
  };
  using MakeText = std::function<Text()>;
  // Counts a request that has failed.
  using Failed = std::function<void(Protocol, Code)>;
  struct Names {
    std::string model, version;
  };
  // `lines`: null = the log has none of it.
  // `make_text` is called when the first token comes: other models have no such figures.
  ModelMeter(Names names, std::array<Times, kNumProtocols> times, TorchServe torchserve, MakeText make_text, Failed failed, const MetricLines* lines)
      : names_(std::move(names)),
        times_(std::move(times)),
        torchserve_(std::move(torchserve)),
        make_text_(std::move(make_text)),
        failed_(std::move(failed)),
        lines_(lines) {}

  void submitted();
  // A worker's call has been started; `dispatch`: what starting it took.
  void started(Protocol protocol, Clock::duration queued, Clock::duration dispatch);
  void first_message(Protocol protocol, Clock::duration since_submit) { times(protocol).first_message->observe(to_seconds(since_submit)); }
  void message(Protocol protocol, Clock::duration since_last) { times(protocol).between->observe(to_seconds(since_last)); }
  // A message with a token; `since`: the request was submitted, or its last message.
  void token(bool first, Clock::duration since);
  // A generation has come to its end.
  void generated(const FinishedInfo& info, Clock::duration since_submit);
  // A generation was cancelled.
  void aborted() { text().aborted->add(); }
  // `at_worker`: since the worker has it; zero when none ever had. Also for requests that were refused at once.
  void ended(Protocol protocol, Clock::duration total, Clock::duration at_worker, const std::optional<Error>& failure,
             std::string_view request_id);

 private:
  [[nodiscard]] const Text& text();
  [[nodiscard]] const Times& times(Protocol protocol) const { return times_[static_cast<size_t>(protocol)]; }

  const Names names_;
  const std::array<Times, kNumProtocols> times_;
  const TorchServe torchserve_;
  const MakeText make_text_;
  std::once_flag text_once_;
  Text text_;
  const Failed failed_;
  const MetricLines* const lines_;
};

}  // namespace penstock::frontend
