#pragma once
// The log files, named and formed as TorchServe's.
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/line_writer.h"
#include "frontend/request_watcher.h"

namespace penstock::frontend {

enum class LogFile { kAccess, kServer, kModel, kServerMetrics, kModelMetrics };

// access_log.log, ts_log.log, model_log.log in one folder, ts_metrics.log and model_metrics.log in another; 100 MB each, 5 old ones kept.
//
// Threads, errors: those of LineWriter. While it lives, what this process logs goes to ts_log.log, too. REQUIRES: made while no other thread
// logs.
class LogFiles {
 public:
  LogFiles(const std::filesystem::path& folder, const std::filesystem::path& metrics_folder);
  ~LogFiles();
  LogFiles(const LogFiles&) = delete;
  LogFiles& operator=(const LogFiles&) = delete;

  void write(LogFile file, std::string_view line) { writer_.write(static_cast<size_t>(file), line); }
  [[nodiscard]] uint64_t lost() const { return writer_.lost(); }

 private:
  class ServerLog;
  LineWriter writer_;
  std::shared_ptr<ServerLog> server_log_;  // the process's log keeps it for ever
};

// "2026-01-02T03:04:05,678", local time.
[[nodiscard]] std::string log_time(std::chrono::system_clock::time_point when);

// `TIME - /127.0.0.1:1234 "POST /predictions/m HTTP/1.1" 200 118`, of gRPC `"gRPC METHOD HTTP/2.0" CODE MS`; the last number is milliseconds.
// Bytes that could end the quotes or the line are escaped as \xNN; the value of a query's `url` that holds more than an address is hidden.
[[nodiscard]] std::string access_line(const AnsweredRequest& request, std::chrono::system_clock::time_point when);
// The same as one JSON object, with request_id and, if there is one, trace_id.
[[nodiscard]] std::string access_json(const AnsweredRequest& request, std::chrono::system_clock::time_point when);

}  // namespace penstock::frontend
