#pragma once
// The front door's gRPC ports: TorchServe's inference and management services, each with grpc.health.v1 and reflection.
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "config/server_config.h"
#include "frontend/management.h"
#include "frontend/model_registry.h"
#include "frontend/access_keys.h"
#include "frontend/request_watcher.h"
#include "rpc/call_pool.h"
#include "rpc/tls_files.h"

namespace penstock::rpc {

struct GrpcServerOptions {
  std::string host = "127.0.0.1";   // no brackets around an IPv6 address
  int port = 7070;                  // 0 = any free one
  const char* port_option = "--port";  // how a user chooses another, for messages
  int max_request_bytes = 6553500;
  int max_response_bytes = 6553500;
  size_t max_memory_bytes = size_t{2048} << 20;  // of all connections; beyond it idle ones are closed, then calls are ended with RESOURCE_EXHAUSTED
  config::ConnectionAge connection_age;
  frontend::AccessKeys* access_keys = nullptr;  // null: every call is let in; must outlive the server
  frontend::KeySet keys = frontend::kManagementKey;  // that open this port
  std::optional<TlsFiles> tls;         // absent: plain text
  frontend::RequestWatcher* watcher = nullptr;  // told of every ended call; null: nobody; must outlive the server
  size_t max_waiting_messages = 1024;  // of one stream; a client that lags further is cut off with RESOURCE_EXHAUSTED
};

// Threads:  every method from any thread; calls run on gRPC's threads.
// Lifetime: registry, management and pool must outlive the server.
class GrpcServer {
 public:
  // Listen at once; health says NOT_SERVING for "" and every model until set_serving().
  // kUnavailable naming address and port, and the system's reason (taken, not permitted, no such address).
  [[nodiscard]] static Result<std::unique_ptr<GrpcServer>> start_inference(const GrpcServerOptions& options,
                                                                           const frontend::ModelRegistry& registry);
  [[nodiscard]] static Result<std::unique_ptr<GrpcServer>> start_management(const GrpcServerOptions& options,
                                                                            frontend::Management& management, CallPool& pool);
  ~GrpcServer();
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  // "127.0.0.1:7070", with the port that was taken when 0 was asked for.
  [[nodiscard]] const std::string& address() const;

  // Health of a model, or of the server as a whole (""); watchers are told.
  void set_serving(const std::string& service, bool serving);
  // Health is NOT_SERVING for all, for good.
  void stop_serving();
  // Takes no new calls, lets the running ones end until the deadline, then cancels them. Calling twice is harmless.
  void shutdown(Deadline deadline);

 private:
  class Impl;
  [[nodiscard]] static Result<std::unique_ptr<GrpcServer>> start(const GrpcServerOptions& options, std::unique_ptr<Impl> impl);
  explicit GrpcServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// "127.0.0.1:7070", "[::1]:7070".
[[nodiscard]] std::string join_address(const std::string& host, int port);

// Sends gRPC's own log lines through ours, at debug level: what matters to a user, our errors say. For main(), before any other call.
void route_grpc_log();

}  // namespace penstock::rpc
