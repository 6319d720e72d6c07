#pragma once
// One gRPC call as metrics, access log and traces see it. Internal to rpc/.
#include <string>

#include "base/clock.h"
#include "frontend/job_options.h"
#include "frontend/request_watcher.h"

namespace grpc {
class CallbackServerContext;
class Status;
}  // namespace grpc

namespace penstock::rpc {

// Threads:  made when the call begins; end() by whoever finishes the call, once.
// Lifetime: the context and the watcher must outlive end().
class CallRecord {
 public:
  // Reads x-request-id, traceparent and tracestate of the call's metadata. `watcher`: null = nobody is told. `service`: with its package;
  // as `method`, a literal.
  CallRecord(const grpc::CallbackServerContext& context, frontend::RequestWatcher* watcher, const char* service, const char* method);

  // Tells the watcher how the call ends, and hands the status on: `Finish(record.end(status))`.
  const grpc::Status& end(const grpc::Status& status);

  // Of the job that the call asks for.
  [[nodiscard]] frontend::JobOptions job_options() const { return {.protocol = frontend::Protocol::kGrpc, .request_id = request_id_, .trace = trace_}; }

 private:
  const grpc::CallbackServerContext& context_;
  frontend::RequestWatcher* const watcher_;
  const char *const service_, *const method_;
  const Clock::time_point began_ = Clock::now();
  std::string request_id_;
  frontend::RequestTrace trace_;
};

}  // namespace penstock::rpc
