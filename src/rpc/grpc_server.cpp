#include "rpc/grpc_server.h"

#include <grpc/support/log.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/impl/service_type.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "rpc/grpc_credentials.h"
#include "rpc/grpc_generate.h"
#include "rpc/grpc_inference.h"
#include "rpc/grpc_management.h"
#include "rpc/grpc_open_inference.h"
#include "rpc/grpc_reflection.h"

namespace penstock::rpc {
namespace {

// A client whose machine has vanished without a word is noticed, and its work ended, after these two.
constexpr int kKeepaliveMs = 60000;
constexpr int kKeepaliveTimeoutMs = 20000;
// Calls of one connection at once; a client's further calls wait at the client.
constexpr int kMaxStreams = 1024;

// gRPC only says that it could not bind; asking the system once more gives its reason.
std::string why_not_bound(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found); failed != 0) return ::gai_strerror(failed);
  std::string reason = "it cannot be bound";
  const int fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    const int on = 1;
    (void)::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd, found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd, 1) != 0) reason = std::strerror(errno);
    ::close(fd);
  }
  ::freeaddrinfo(found);
  return reason;
}

void log_line(gpr_log_func_args* args) { spdlog::debug("gRPC: {}", args->message); }

}  // namespace

std::string join_address(const std::string& host, int port) {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

void route_grpc_log() {
  gpr_set_log_function(&log_line);
  gpr_set_log_verbosity(GPR_LOG_SEVERITY_ERROR);
}

class GrpcServer::Impl {
 public:
  explicit Impl(std::vector<NamedService> services) : services_(std::move(services)) {
    std::vector<std::string> names;
    for (const NamedService& service : services_) names.push_back(service.name);
    names.insert(names.end(), {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"});
    reflection_ = make_reflection_service(std::move(names));
  }
  ~Impl() { shutdown(Deadline::after(milliseconds(0))); }

  std::optional<Error> listen(const GrpcServerOptions& options) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(join_address(options.host, options.port), make_server_credentials(options.access_keys, options.keys, options.tls), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a second server on the port is a mistake, not a helper
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
    builder.SetResourceQuota(grpc::ResourceQuota("penstock").Resize(options.max_memory_bytes));
    if (options.connection_age.max_ms > 0) {
      builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, options.connection_age.max_ms);
      if (options.connection_age.grace_ms > 0) builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, options.connection_age.grace_ms);
    }
    builder.SetMaxReceiveMessageSize(options.max_request_bytes);
    builder.SetMaxSendMessageSize(options.max_response_bytes);
    for (const NamedService& service : services_) builder.RegisterService(service.service.get());
    builder.RegisterService(reflection_.get());
    server_ = builder.BuildAndStart();
    if (!server_ || port == 0) {
      return error(Code::kUnavailable,
                   "cannot listen on {}: {}; end the program that has it (ss -ltnp 'sport = :{}' names it), or choose another with {}",
                   join_address(options.host, options.port), why_not_bound(options.host, options.port), options.port, options.port_option);
    }
    address_ = join_address(options.host, port);
    set_serving("", false);
    return std::nullopt;
  }

  [[nodiscard]] const std::string& address() const { return address_; }
  void set_serving(const std::string& service, bool serving) { server_->GetHealthCheckService()->SetServingStatus(service, serving); }
  void stop_serving() { server_->GetHealthCheckService()->Shutdown(); }
  void shutdown(Deadline deadline) {
    if (!server_) return;
    server_->Shutdown(std::chrono::system_clock::now() + std::min<Clock::duration>(deadline.remaining(), std::chrono::hours(24)));
  }

 private:
  std::vector<NamedService> services_;
  std::unique_ptr<grpc::Service> reflection_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;  // last: its destructor waits for the calls, which use the services
};

GrpcServer::GrpcServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GrpcServer::~GrpcServer() = default;

Result<std::unique_ptr<GrpcServer>> GrpcServer::start(const GrpcServerOptions& options, std::unique_ptr<Impl> impl) {
  if (auto failure = impl->listen(options)) return *failure;
  return std::unique_ptr<GrpcServer>(new GrpcServer(std::move(impl)));
}

Result<std::unique_ptr<GrpcServer>> GrpcServer::start_inference(const GrpcServerOptions& options, const frontend::ModelRegistry& registry) {
  const auto limit = static_cast<size_t>(options.max_response_bytes);
  std::vector<NamedService> services = make_open_inference_services(registry, limit, options.watcher);
  services.push_back({"org.pytorch.serve.grpc.inference.InferenceAPIsService",
                      make_inference_service(registry, options.max_waiting_messages, limit, options.watcher)});
  services.push_back({kGenerateService, make_generate_service(registry, options.max_waiting_messages, options.watcher)});
  auto server = start(options, std::make_unique<Impl>(std::move(services)));
  if (server) {
    for (const auto& model : registry.defaults()) (*server)->set_serving(model->name(), model->serving());
  }
  return server;
}

Result<std::unique_ptr<GrpcServer>> GrpcServer::start_management(const GrpcServerOptions& options, frontend::Management& management,
                                                                 CallPool& pool) {
  std::vector<NamedService> services;
  services.push_back({"org.pytorch.serve.grpc.management.ManagementAPIsService", make_management_service(management, pool, options.watcher)});
  return start(options, std::make_unique<Impl>(std::move(services)));
}

const std::string& GrpcServer::address() const { return impl_->address(); }
void GrpcServer::set_serving(const std::string& service, bool serving) { impl_->set_serving(service, serving); }
void GrpcServer::stop_serving() { impl_->stop_serving(); }
void GrpcServer::shutdown(Deadline deadline) { impl_->shutdown(deadline); }

}  // namespace penstock::rpc
