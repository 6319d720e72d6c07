#pragma once
// Every metric of the front door: TorchServe's and vLLM's, by their names, and ours (docs/observability.md has the table).
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/metrics.h"
#include "frontend/metric_lines.h"
#include "frontend/model_meter.h"
#include "frontend/system_metrics.h"

namespace penstock::frontend {

class ModelRegistry;

// Threads:  every method from any thread.
// Lifetime: outlives its meters.
class ServingMetrics {
 public:
  explicit ServingMetrics(std::string hostname);

  // Figures become lines of log files, too. REQUIRES: called before all else; `lines` outlives this.
  void write_lines(const MetricLines& lines) { lines_ = &lines; }
  // Of one version of a model; the same figures again for a version that comes back.
  [[nodiscard]] std::shared_ptr<ModelMeter> meter(const std::string& model, const std::string& version);
  // A request was answered, over HTTP or gRPC, with this HTTP status; one below 400 counts as 2XX.
  void answered(int http_status);
  // `worker`: "W-9000-tiny_1.0".
  void worker_loaded(const std::string& worker, milliseconds took);
  void set_system(const SystemSample& sample);
  // Queues and workers are looked at when somebody asks. REQUIRES: nobody asks once the models are gone.
  void watch(const ModelRegistry& models);

  // Writes more families whenever somebody asks; must not block.
  void collect(std::function<void(MetricText&)> collector) { registry_.collect(std::move(collector)); }

  // Prometheus text of these families or samples; empty = all. `legacy`: of the three counters that TorchServe had first, and no others.
  [[nodiscard]] std::string render(std::vector<std::string> wanted, bool legacy = false) const;

 private:
  [[nodiscard]] ModelMeter::Text text_figures(const std::string& model, const std::string& version);
  [[nodiscard]] MetricFamily<Gauge>& host_gauge(const char* name, const char* unit);
  void set_host(MetricFamily<Gauge>& family, const char* name, const char* unit, double value);
  void set_gpu(const GpuUse& gpu);

  const std::string hostname_;
  const MetricLines* lines_ = nullptr;
  MetricRegistry registry_;
  std::array<std::shared_ptr<Counter>, 3> requests_;  // 2XX, 4XX, 5XX
  MetricFamily<Counter>&inference_requests_, &inference_latency_, &queue_latency_;
  MetricFamily<Gauge>&queue_time_, &worker_thread_time_, &worker_load_time_;
  MetricFamily<Gauge>&cpu_, &memory_used_, &memory_available_, &memory_utilization_;
  MetricFamily<Gauge>&disk_used_, &disk_utilization_, &disk_available_;
  MetricFamily<Gauge>&gpu_memory_utilization_, &gpu_memory_used_, &gpu_utilization_;
  MetricFamily<Gauge>&handler_time_, &prediction_time_;
  MetricFamily<Counter>& ended_;
  MetricFamily<Histogram>&queue_seconds_, &first_message_seconds_, &between_seconds_, &total_seconds_;
  MetricFamily<Counter>&prompt_tokens_, &generation_tokens_, &success_;
  MetricFamily<Histogram>&first_token_seconds_, &between_tokens_seconds_, &e2e_seconds_, &prompt_length_, &generation_length_;
};

}  // namespace penstock::frontend
