#pragma once
// Spans of requests, sent in batches as OTLP over HTTP in JSON (OpenTelemetry protocol 1.0, /v1/traces).
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/mutex.h"
#include "frontend/trace_context.h"

namespace penstock::frontend {

enum class SpanKind { kInternal = 1, kServer = 2, kClient = 3 };  // numbers of OTLP

struct Span {
  TraceId trace{};
  SpanId id{};
  std::optional<SpanId> parent;
  std::string state;              // tracestate
  std::string name;
  SpanKind kind = SpanKind::kInternal;
  std::chrono::system_clock::time_point begin, end;
  std::vector<std::pair<std::string, std::string>> attributes;
  std::optional<std::string> failure;
};

// The body of one POST.
[[nodiscard]] std::string otlp_json(std::span<const Span> spans, const std::string& hostname);

struct SpanExporterOptions {
  std::string hostname;
  size_t max_waiting = 4096;     // spans; what comes then is dropped and counted
  size_t max_batch = 512;
  milliseconds interval{1000};   // a batch goes at the latest so long after its first span
  milliseconds send_timeout{5000};
};

// Threads: add() and the counts from any thread; add() takes a lock for the time of a move. One thread of its own sends.
// Errors:  a batch that cannot be sent is dropped and counted, and a warning says why, at most once a minute. It is not tried again:
//          spans are samples, and a collector that is down must not fill our memory.
// Blocks:  only the destructor, which sends what waits within one send_timeout.
class SpanExporter {
 public:
  // `send`: one POST of a JSON body within the deadline; what went wrong, or nullopt.
  using Send = std::function<std::optional<Error>(const std::string& body, Deadline deadline)>;
  SpanExporter(SpanExporterOptions options, Send send);
  ~SpanExporter();
  SpanExporter(const SpanExporter&) = delete;
  SpanExporter& operator=(const SpanExporter&) = delete;

  void add(Span span) EXCLUDES(mutex_);
  [[nodiscard]] uint64_t sent() const EXCLUDES(mutex_);
  [[nodiscard]] uint64_t dropped() const EXCLUDES(mutex_);

 private:
  void run() EXCLUDES(mutex_);
  void send_batch(const std::vector<Span>& batch, Deadline deadline) EXCLUDES(mutex_);

  const SpanExporterOptions options_;
  const Send send_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Span> waiting_ GUARDED_BY(mutex_);
  uint64_t sent_ GUARDED_BY(mutex_) = 0;
  uint64_t dropped_ GUARDED_BY(mutex_) = 0;
  bool stopping_ GUARDED_BY(mutex_) = false;
  Clock::time_point next_warning_{};  // its thread's
  std::thread thread_;                // last: it uses the members above
};

}  // namespace penstock::frontend
