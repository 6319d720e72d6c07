#include "frontend/metric_lines.h"

#include <fmt/format.h>

#include <chrono>

#include "base/metrics.h"

namespace penstock::frontend {
namespace {

using std::chrono::system_clock;

int64_t timestamp(system_clock::time_point now) { return std::chrono::duration_cast<seconds>(now.time_since_epoch()).count(); }

}  // namespace

void MetricLines::host(std::string_view name, std::string_view unit, double value, std::string_view dimensions) const {
  const auto now = system_clock::now();
  files_.write(LogFile::kServerMetrics, fmt::format("{} - {}.{}:{}|#{}Level:Host|#hostname:{},timestamp:{}", log_time(now), name, unit,
                                                    metric_number(value), dimensions, hostname_, timestamp(now)));
}

void MetricLines::version(std::string_view name, std::string_view unit, double value, std::string_view model, std::string_view version) const {
  const auto now = system_clock::now();
  files_.write(LogFile::kServerMetrics,
               fmt::format("{} - {}.{}:{}|#model_name:{},model_version:{}|#hostname:{},timestamp:{}", log_time(now), name, unit,
                           metric_number(value), model, version, hostname_, timestamp(now)));
}

void MetricLines::model(std::string_view name, std::string_view unit, double value, std::string_view model, std::string_view request_id) const {
  const auto now = system_clock::now();
  files_.write(LogFile::kModelMetrics,
               fmt::format("{} - {}.{}:{}|#ModelName:{},Level:Model|#hostname:{},requestID:{},timestamp:{}", log_time(now), name, unit,
                           metric_number(value), model, hostname_, request_id, timestamp(now)));
}

}  // namespace penstock::frontend
