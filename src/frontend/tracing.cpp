#include "frontend/tracing.h"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/log.h"

namespace penstock::frontend {
namespace {

using Json = nlohmann::ordered_json;

constexpr seconds kBetweenWarnings{60};

std::string nanoseconds_of(std::chrono::system_clock::time_point when) {
  return std::to_string(std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count());
}

Json attribute(const std::string& key, const std::string& value) { return {{"key", key}, {"value", {{"stringValue", value}}}}; }

Json to_json(const Span& span) {
  Json json;
  json["traceId"] = to_hex(span.trace.data(), span.trace.size());
  json["spanId"] = to_hex(span.id.data(), span.id.size());
  if (span.parent) json["parentSpanId"] = to_hex(span.parent->data(), span.parent->size());
  if (!span.state.empty()) json["traceState"] = span.state;
  json["name"] = span.name;
  json["kind"] = static_cast<int>(span.kind);
  json["startTimeUnixNano"] = nanoseconds_of(span.begin);
  json["endTimeUnixNano"] = nanoseconds_of(span.end);
  json["attributes"] = Json::array();
  for (const auto& [key, value] : span.attributes) json["attributes"].push_back(attribute(key, value));
  json["status"] = Json::object();
  if (span.failure) json["status"] = {{"code", 2}, {"message", *span.failure}};
  return json;
}

}  // namespace

std::string otlp_json(std::span<const Span> spans, const std::string& hostname) {
  Json scope = {{"scope", {{"name", "penstock"}}}, {"spans", Json::array()}};
  for (const Span& span : spans) scope["spans"].push_back(to_json(span));
  const Json resource = {{"attributes", Json::array({attribute("service.name", "penstock"), attribute("host.name", hostname)})}};
  const Json all = {{"resourceSpans", Json::array({Json{{"resource", resource}, {"scopeSpans", Json::array({scope})}}})}};
  return all.dump(-1, ' ', false, Json::error_handler_t::replace);
}

SpanExporter::SpanExporter(SpanExporterOptions options, Send send) : options_(std::move(options)), send_(std::move(send)) {
  thread_ = std::thread([this] { run(); });
}

SpanExporter::~SpanExporter() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void SpanExporter::add(Span span) {
  MutexLock lock(mutex_);
  if (waiting_.size() >= options_.max_waiting) {
    ++dropped_;
    return;
  }
  waiting_.push_back(std::move(span));
  if (waiting_.size() == 1 || waiting_.size() == options_.max_batch) changed_.notify_all();
}

uint64_t SpanExporter::sent() const {
  MutexLock lock(mutex_);
  return sent_;
}

uint64_t SpanExporter::dropped() const {
  MutexLock lock(mutex_);
  return dropped_;
}

void SpanExporter::run() {
  for (;;) {
    std::vector<Span> batch;
    Deadline deadline = Deadline::never();
    {
      MutexLock lock(mutex_);
      while (waiting_.empty() && !stopping_) changed_.wait(mutex_, Deadline::never());
      if (waiting_.empty()) return;
      const Deadline full = Deadline::after(options_.interval);
      while (waiting_.size() < options_.max_batch && !stopping_ && changed_.wait(mutex_, full)) {
      }
      const size_t count = std::min(waiting_.size(), options_.max_batch);
      const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(count);
      batch.assign(std::make_move_iterator(waiting_.begin()), std::make_move_iterator(end));
      waiting_.erase(waiting_.begin(), end);
      deadline = Deadline::after(options_.send_timeout);
    }
    send_batch(batch, deadline);
    MutexLock lock(mutex_);
    if (stopping_ && deadline.passed()) return;
  }
}

void SpanExporter::send_batch(const std::vector<Span>& batch, Deadline deadline) {
  const auto failure = send_(otlp_json(batch, options_.hostname), deadline);
  {
    MutexLock lock(mutex_);
    (failure ? dropped_ : sent_) += batch.size();
  }
  if (!failure || Clock::now() < next_warning_) return;
  next_warning_ = Clock::now() + kBetweenWarnings;
  spdlog::warn("traces: {} span(s) are lost: {}", batch.size(), failure->message());
}

}  // namespace penstock::frontend
