#pragma once
// What becomes of every answered request: a count, a line of the access log, a span.
#include "frontend/log_files.h"
#include "frontend/request_watcher.h"
#include "frontend/serving_metrics.h"
#include "frontend/tracing.h"

namespace penstock::frontend {

enum class AccessLogFormat { kTorchServe, kJson, kOff };

// Threads:  as RequestWatcher.
// Lifetime: what it is given must outlive it.
class RequestRecorder final : public RequestWatcher {
 public:
  // `files`: null = no access log. `spans`: null = no spans.
  RequestRecorder(ServingMetrics& metrics, LogFiles* files, AccessLogFormat format, SpanExporter* spans)
      : metrics_(metrics), files_(files), format_(format), spans_(spans) {}

  void answered(const AnsweredRequest& request) override;
  [[nodiscard]] bool records_spans() const override { return spans_ != nullptr; }

 private:
  ServingMetrics& metrics_;
  LogFiles* const files_;
  const AccessLogFormat format_;
  SpanExporter* const spans_;
};

}  // namespace penstock::frontend
