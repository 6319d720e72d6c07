#include "frontend/log_files.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/base_sink.h>

#include <algorithm>
#include <ctime>
#include <iterator>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/log.h"

namespace penstock::frontend {
namespace {

constexpr size_t kMaxTarget = 2000;  // bytes of a path that a line shows

// "WARN ", as Java's loggers write it.
class PaddedLevel final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    static constexpr std::string_view kNames[] = {"TRACE", "DEBUG", "INFO ", "WARN ", "ERROR", "FATAL", "OFF  "};
    const std::string_view name = kNames[std::min<size_t>(message.level, std::size(kNames) - 1)];
    out.append(name.data(), name.data() + name.size());
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<PaddedLevel>(); }
};

}  // namespace

// The process's log, line by line, into ts_log.log.
class LogFiles::ServerLog final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit ServerLog(LineWriter& writer) : writer_(&writer) {
    auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::local, "");
    formatter->add_flag<PaddedLevel>('*').set_pattern("%Y-%m-%dT%H:%M:%S,%e [%*] %t penstock.%n - %v");
    formatter_ = std::move(formatter);
  }
  // Its lines go nowhere from now on.
  void close() {
    const std::lock_guard lock(mutex_);
    writer_ = nullptr;
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (!writer_) return;
    spdlog::memory_buf_t line;
    formatter_->format(message, line);
    writer_->write(static_cast<size_t>(LogFile::kServer), std::string_view(line.data(), line.size()));
  }
  void flush_() override {}

 private:
  LineWriter* writer_;
};

namespace {

// What stands for a request in a log: nothing that ends the quotes or the line, and no secret of a URL that is fetched.
std::string shown_target(std::string_view target) {
  std::string text;
  const bool cut = target.size() > kMaxTarget;
  target = target.substr(0, kMaxTarget);
  const size_t mark = std::min(target.find('?'), target.size());
  text.append(target.substr(0, mark));
  std::string_view query = target.substr(mark);
  while (!query.empty()) {  // "?a=b" or "&a=b"
    const std::string_view pair = query.substr(0, query.find('&', 1));
    query.remove_prefix(pair.size());
    constexpr std::string_view kUrl = "url=";
    const bool hide = pair.substr(1).starts_with(kUrl) && pair.find_first_of("@?%", 1 + kUrl.size()) != std::string_view::npos;
    text.append(hide ? pair.substr(0, 1 + kUrl.size()) : pair);
    if (hide) text += "***";
  }
  std::string safe;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 0x20 && byte < 0x7F && c != '"' && c != '\\') safe += c;
    else fmt::format_to(std::back_inserter(safe), "\\x{:02x}", byte);
  }
  return cut ? safe + "..." : safe;
}

double milliseconds_of(Clock::duration took) { return to_seconds(took) * 1e3; }

}  // namespace

LogFiles::LogFiles(const std::filesystem::path& folder, const std::filesystem::path& metrics_folder) {
  // In the order of LogFile.
  for (const char* name : {"access_log.log", "ts_log.log", "model_log.log"}) (void)writer_.open(folder / name);
  for (const char* name : {"ts_metrics.log", "model_metrics.log"}) (void)writer_.open(metrics_folder / name);
  server_log_ = std::make_shared<ServerLog>(writer_);
  spdlog::default_logger()->sinks().push_back(server_log_);
}

LogFiles::~LogFiles() { server_log_->close(); }

std::string log_time(std::chrono::system_clock::time_point when) {
  const std::time_t whole = std::chrono::system_clock::to_time_t(when);
  const auto ms = std::chrono::duration_cast<milliseconds>(when.time_since_epoch()).count() % 1000;
  std::tm parts{};
  ::localtime_r(&whole, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02},{:03}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour,
                     parts.tm_min, parts.tm_sec, ms);
}

std::string access_line(const AnsweredRequest& request, std::chrono::system_clock::time_point when) {
  const bool grpc = request.protocol == Protocol::kGrpc;
  return fmt::format("{} - /{} \"{} {} {}\" {} {:.0f}", log_time(when), request.peer, grpc ? "gRPC" : request.method, shown_target(request.target),
                     grpc ? "HTTP/2.0" : request.version, request.status, milliseconds_of(request.took));
}

std::string access_json(const AnsweredRequest& request, std::chrono::system_clock::time_point when) {
  nlohmann::ordered_json json;
  const bool grpc = request.protocol == Protocol::kGrpc;
  json["time"] = log_time(when);
  json["peer"] = request.peer;
  json["protocol"] = grpc ? "grpc" : "http";
  if (!grpc) json["method"] = request.method;
  json["path"] = shown_target(request.target);
  json["status"] = request.status;
  json["ms"] = milliseconds_of(request.took);
  json["request_id"] = request.request_id;
  if (request.trace && request.trace->context) {
    json["trace_id"] = to_hex(request.trace->context->trace.data(), request.trace->context->trace.size());
  }
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace penstock::frontend
