#pragma once
// What the front door tells about itself: metrics, log files, spans.
#include <memory>
#include <optional>
#include <string>

#include "config/server_config.h"
#include "frontend/log_files.h"
#include "frontend/metric_lines.h"
#include "frontend/model_log.h"
#include "frontend/model_registry.h"
#include "frontend/request_recorder.h"
#include "frontend/serving_metrics.h"
#include "frontend/system_metrics.h"
#include "frontend/tracing.h"
#include "rpc/http_server.h"

namespace penstock {

// Threads:  made while no other thread logs; its parts from any thread.
// Lifetime: outlives everything that serves.
class Observability {
 public:
  // Log files are written if `wants_log_files`, if LOG_LOCATION is set, or if the key access_log asks for them: in LOG_LOCATION, or else
  // `log_folder`. Throws Error kInvalidArgument or kUnimplemented for an endpoint of spans that cannot be used.
  Observability(const config::ServerConfig& config, const std::string& log_folder, bool wants_log_files);

  [[nodiscard]] frontend::ServingMetrics& metrics() { return metrics_; }
  [[nodiscard]] frontend::RequestWatcher& requests() { return *recorder_; }
  [[nodiscard]] frontend::SpanExporter* spans() { return spans_.get(); }  // null: no spans

  // The listener of GET /metrics, with the limits and files of `options`; null if it is not asked for. It must not outlive the models.
  // Throws Error: those of HttpServer::start().
  [[nodiscard]] std::unique_ptr<rpc::HttpServer> listen(const frontend::ModelRegistry& models, rpc::HttpServerOptions options);

 private:
  void collect_losses();

  const config::ServerConfig& config_;
  const std::string hostname_;
  std::optional<frontend::LogFiles> files_;  // absent: no log files
  std::optional<frontend::ModelLog> model_log_;  // what workers print
  std::optional<frontend::MetricLines> lines_;
  frontend::ServingMetrics metrics_;
  std::unique_ptr<frontend::SpanExporter> spans_;
  std::unique_ptr<frontend::RequestRecorder> recorder_;
  std::unique_ptr<frontend::SystemSampler> sampler_;
};

}  // namespace penstock
