#pragma once
// Whoever wants to know of every answered request, of both protocols: metrics, access log, spans.
#include <string_view>

#include "base/clock.h"
#include "frontend/model_meter.h"
#include "frontend/trace_context.h"

namespace penstock::frontend {

struct AnsweredRequest {
  Protocol protocol = Protocol::kHttp;
  std::string_view peer;         // "127.0.0.1:1234"
  std::string_view method;       // HTTP: "POST"
  std::string_view target;       // HTTP: path and query, as sent; gRPC: "/PACKAGE.SERVICE/METHOD"
  std::string_view version;      // "HTTP/1.1"
  int status = 0;                // of HTTP (499: the client went before it was answered), or gRPC's code
  Clock::duration took{};
  std::string_view request_id;
  const RequestTrace* trace = nullptr;  // null: it never came so far
};

// Threads: called from any thread, once for each request. Views are valid during the call. Must not block.
class RequestWatcher {
 public:
  virtual ~RequestWatcher() = default;
  virtual void answered(const AnsweredRequest& request) = 0;
  // Spans are wanted: requests get spans of their own.
  [[nodiscard]] virtual bool records_spans() const = 0;
};

// The HTTP status that says most nearly what a gRPC code says.
[[nodiscard]] int http_status_of_grpc(int code);

}  // namespace penstock::frontend
