#include "frontend/job_report.h"

#include <utility>

namespace penstock::frontend {
namespace {

using SystemClock = std::chrono::system_clock;

// The same moment on the clock that people read.
SystemClock::time_point system_time(Clock::time_point when) {
  return SystemClock::now() + std::chrono::duration_cast<SystemClock::duration>(when - Clock::now());
}

Span part_of(const JobEnd& end, SpanId id, const char* name, Clock::time_point begin, Clock::time_point until) {
  const TraceContext& request = *end.options.trace.context;
  Span span;
  span.trace = request.trace;
  span.id = id;
  span.parent = request.span;
  span.state = request.state;
  span.name = name;
  span.begin = system_time(begin);
  span.end = system_time(until);
  return span;
}

}  // namespace

void JobReporter::ended(const JobEnd& end) const {
  const auto now = Clock::now();
  if (meter) {
    const auto at_worker = end.started ? now - *end.started : Clock::duration::zero();
    if (end.generates_text && end.failure && end.failure->code() == Code::kCancelled) meter->aborted();
    meter->ended(end.options.protocol, now - end.submitted, at_worker, end.failure, end.options.request_id);
  }
  if (!spans || !end.options.trace.recorded) return;
  const auto finish = [&](Span span) {
    span.attributes = {{"penstock.model", model}, {"penstock.model_version", version}};
    spans->add(std::move(span));
  };
  Span queue = part_of(end, new_span_id(), "queue", end.submitted, end.started.value_or(now));
  if (!end.started && end.failure) queue.failure = end.failure->message();
  finish(std::move(queue));
  if (!end.started) return;
  Span worker = part_of(end, end.worker_span, "worker", *end.started, now);
  worker.kind = SpanKind::kClient;
  if (end.failure) worker.failure = end.failure->message();
  finish(std::move(worker));
}

}  // namespace penstock::frontend
