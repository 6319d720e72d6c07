#include "frontend/request_recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <string>

namespace penstock::frontend {

int http_status_of_grpc(int code) {
  switch (code) {
    case 0: return 200;   // OK
    case 1: return 499;   // CANCELLED
    case 3:               // INVALID_ARGUMENT
    case 9:               // FAILED_PRECONDITION
    case 11: return 400;  // OUT_OF_RANGE
    case 4: return 504;   // DEADLINE_EXCEEDED
    case 5: return 404;   // NOT_FOUND
    case 6:               // ALREADY_EXISTS
    case 10: return 409;  // ABORTED
    case 7: return 403;   // PERMISSION_DENIED
    case 8: return 429;   // RESOURCE_EXHAUSTED
    case 12: return 501;  // UNIMPLEMENTED
    case 14: return 503;  // UNAVAILABLE
    case 16: return 401;  // UNAUTHENTICATED
    default: return 500;
  }
}

namespace {

// The request as the server saw it, named and described as OpenTelemetry's conventions have it.
Span to_span(const AnsweredRequest& request, int http_status) {
  const bool grpc = request.protocol == Protocol::kGrpc;
  const TraceContext& context = *request.trace->context;
  const std::string path(request.target.substr(0, request.target.find('?')));
  Span span;
  span.trace = context.trace;
  span.id = context.span;
  span.parent = request.trace->parent;
  span.state = context.state;
  span.kind = SpanKind::kServer;
  span.end = std::chrono::system_clock::now();
  span.begin = span.end - std::chrono::duration_cast<std::chrono::system_clock::duration>(request.took);
  span.name = grpc ? path.substr(std::min<size_t>(1, path.size())) : std::string(request.method);
  span.attributes = {{"client.address", std::string(request.peer)}, {"penstock.request_id", std::string(request.request_id)}};
  if (grpc) {
    span.attributes.emplace_back("rpc.system", "grpc");
    span.attributes.emplace_back("rpc.grpc.status_code", std::to_string(request.status));
  } else {
    span.attributes.emplace_back("url.path", path);
    span.attributes.emplace_back("http.request.method", std::string(request.method));
    span.attributes.emplace_back("http.response.status_code", std::to_string(request.status));
  }
  if (http_status >= 500) span.failure = fmt::format("status {}", request.status);
  return span;
}

}  // namespace

void RequestRecorder::answered(const AnsweredRequest& request) {
  const bool grpc = request.protocol == Protocol::kGrpc;
  const int http_status = grpc ? http_status_of_grpc(request.status) : request.status;
  metrics_.answered(http_status);
  if (spans_ && request.trace && request.trace->recorded) spans_->add(to_span(request, http_status));
  if (!files_ || format_ == AccessLogFormat::kOff) return;
  const auto now = std::chrono::system_clock::now();
  files_->write(LogFile::kAccess, format_ == AccessLogFormat::kJson ? access_json(request, now) : access_line(request, now));
}

}  // namespace penstock::frontend
