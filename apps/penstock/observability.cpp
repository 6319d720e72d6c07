#include "observability.h"

#include <unistd.h>

#include <filesystem>
#include <utility>
#include <vector>

#include "base/log.h"
#include "config/environment.h"
#include "rpc/http_client.h"
#include "rpc/http_metrics.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

std::string host_name() {
  char name[256] = "";
  (void)::gethostname(name, sizeof name - 1);
  return name;
}

// An environment variable that is not empty.
std::optional<std::string> variable(const char* name) {
  auto value = config::process_environment()(name);
  return value && !value->empty() ? value : std::nullopt;
}

// Where spans go, as OpenTelemetry's variables and our key say it; nullopt: nowhere.
std::optional<rpc::HttpUrl> span_endpoint(const config::ServerConfig& config) {
  std::string url = config.otlp_endpoint, source = "key 'otlp_endpoint'";
  bool whole = false;
  if (url.empty()) {
    if (const auto traces = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
      url = *traces;
      source = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
      whole = true;
    } else if (const auto all = variable("OTEL_EXPORTER_OTLP_ENDPOINT")) {
      url = *all;
      source = "OTEL_EXPORTER_OTLP_ENDPOINT";
    }
  }
  if (url.empty()) return std::nullopt;
  auto parsed = rpc::parse_http_url(url);
  if (!parsed) throw error(parsed.error().code(), "{}: {}", source, parsed.error().message());
  while (parsed->path.ends_with('/')) parsed->path.pop_back();
  if (!whole) parsed->path += "/v1/traces";
  if (parsed->path.empty()) parsed->path = "/";
  return *parsed;
}

frontend::AccessLogFormat access_format(config::AccessLog choice) {
  switch (choice) {
    case config::AccessLog::kJson: return frontend::AccessLogFormat::kJson;
    case config::AccessLog::kOff: return frontend::AccessLogFormat::kOff;
    default: return frontend::AccessLogFormat::kTorchServe;
  }
}

}  // namespace

Observability::Observability(const config::ServerConfig& config, const std::string& log_folder, bool wants_log_files)
    : config_(config), hostname_(host_name()), metrics_(hostname_) {
  const auto log_location = variable("LOG_LOCATION");
  const bool asked_for = config.access_log == config::AccessLog::kTorchServe || config.access_log == config::AccessLog::kJson;
  if (wants_log_files || log_location || asked_for) {
    const fs::path folder = fs::absolute(log_location.value_or(log_folder));
    const auto metrics_location = variable("METRICS_LOCATION");
    files_.emplace(folder, metrics_location ? fs::absolute(*metrics_location) : folder);
    model_log_.emplace(fs::absolute(log_folder), [this](std::string_view line) { files_->write(frontend::LogFile::kModel, line); });
    if (config.metrics_mode != config::MetricsMode::kPrometheus) {
      lines_.emplace(*files_, hostname_);
      metrics_.write_lines(*lines_);
    }
  }
  if (const auto endpoint = span_endpoint(config)) {
    frontend::SpanExporterOptions options;
    options.hostname = hostname_;
    spans_ = std::make_unique<frontend::SpanExporter>(
        options, [endpoint = *endpoint](const std::string& body, Deadline deadline) { return rpc::post_json(endpoint, body, deadline); });
    spdlog::info("traces: spans go to http://{}:{}{}", endpoint->host, endpoint->port, endpoint->path);
  }
  recorder_ = std::make_unique<frontend::RequestRecorder>(metrics_, files_ ? &*files_ : nullptr, access_format(config.access_log), spans_.get());
  collect_losses();
  if (config.disable_system_metrics) return;
  sampler_ = std::make_unique<frontend::SystemSampler>(config.metric_time_interval,
                                                       [this](const frontend::SystemSample& sample) { metrics_.set_system(sample); });
}

void Observability::collect_losses() {
  metrics_.collect([this](MetricText& text) {
    text.family("penstock_log_lines_lost_total", "counter", "Lines of log files that could not be written");
    text.sample({}, {}, files_ ? static_cast<double>(files_->lost()) : 0);
    text.family("penstock_spans_total", "counter", "Spans of traces, by what became of them");
    text.sample({"fate"}, {"sent"}, spans_ ? static_cast<double>(spans_->sent()) : 0);
    text.sample({"fate"}, {"dropped"}, spans_ ? static_cast<double>(spans_->dropped()) : 0);
  });
}

std::unique_ptr<rpc::HttpServer> Observability::listen(const frontend::ModelRegistry& models, rpc::HttpServerOptions options) {
  if (!config_.enable_metrics_api) return nullptr;
  metrics_.watch(models);
  options.address = config_.metrics_address;
  options.address_key = "metrics_address";
  const bool legacy = config_.metrics_mode == config::MetricsMode::kLegacy;
  auto routes = rpc::metrics_routes([this, legacy](const std::vector<std::string>& names) { return metrics_.render(names, legacy); });
  return std::move(rpc::HttpServer::start(options, {"Penstock: metrics", std::move(routes)})).value();
}

}  // namespace penstock
