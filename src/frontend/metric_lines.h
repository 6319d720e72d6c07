#pragma once
// Metrics as lines of ts_metrics.log and model_metrics.log (metrics_mode=log and legacy), in TorchServe's form:
//   TIME - QueueTime.Milliseconds:2.0|#Level:Host|#hostname:box,timestamp:1700000000
#include <string>
#include <string_view>
#include <utility>

#include "frontend/log_files.h"

namespace penstock::frontend {

// Threads:  every method from any thread.
// Lifetime: the files must outlive it.
class MetricLines {
 public:
  MetricLines(LogFiles& files, std::string hostname) : files_(files), hostname_(std::move(hostname)) {}

  // `dimensions` besides Level:Host: "WorkerName:w,", or nothing.
  void host(std::string_view name, std::string_view unit, double value, std::string_view dimensions = "") const;
  void version(std::string_view name, std::string_view unit, double value, std::string_view model, std::string_view version) const;
  void model(std::string_view name, std::string_view unit, double value, std::string_view model, std::string_view request_id) const;

 private:
  LogFiles& files_;
  const std::string hostname_;
};

}  // namespace penstock::frontend
