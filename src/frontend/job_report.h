#pragma once
// What metrics and traces learn when a job ends.
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "frontend/job_options.h"
#include "frontend/tracing.h"

namespace penstock::frontend {

struct JobEnd {
  const JobOptions& options;
  SpanId worker_span;                       // of its time at a worker
  Clock::time_point submitted;
  std::optional<Clock::time_point> started; // absent: no worker has had it
  const std::optional<Error>& failure;
  bool generates_text = false;
};

// Where a queue reports to. Both may be null; `spans` must outlive the queue.
struct JobReporter {
  std::string model, version;
  std::shared_ptr<ModelMeter> meter;
  SpanExporter* spans = nullptr;

  // Threads: any.
  void ended(const JobEnd& end) const;
};

}  // namespace penstock::frontend
