#include "rpc/grpc_rendezvous.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <utility>

#include "rendezvous.grpc.pb.h"
#include "rpc/grpc_server.h"
#include "rpc/status_map.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::rendezvous::v1;

constexpr int kMaxReportBytes = 64 << 10;
constexpr size_t kMaxCauseBytes = 4096;

pb::AgentReport to_proto(const cluster::AgentReport& report) {
  pb::AgentReport message;
  message.set_agent(report.agent);
  message.set_job(report.job);
  message.set_node_rank(report.node_rank);
  message.set_num_ranks(report.num_ranks);
  message.set_free_port(report.free_port);
  message.set_round(report.round);
  message.set_running(report.running);
  message.set_leaving(report.leaving);
  message.set_end(static_cast<int>(report.end));
  message.set_exit_code(report.exit_code);
  message.set_cause(report.cause.substr(0, kMaxCauseBytes));
  return message;
}

Result<cluster::AgentReport> from_proto(const pb::AgentReport& message) {
  const bool sound = !message.agent().empty() && message.node_rank() >= 0 && message.num_ranks() >= 1 && message.num_ranks() <= 65536 && message.end() >= 0 &&
                     message.end() <= static_cast<int>(cluster::RoundEnd::kPeerFailed);
  if (!sound) return error(Code::kInvalidArgument, "the rendezvous got a report that no agent of this version makes");
  cluster::AgentReport report;
  report.agent = message.agent();
  report.job = message.job();
  report.node_rank = message.node_rank();
  report.num_ranks = message.num_ranks();
  report.free_port = message.free_port();
  report.round = message.round();
  report.running = message.running();
  report.leaving = message.leaving();
  report.end = static_cast<cluster::RoundEnd>(message.end());
  report.exit_code = message.exit_code();
  report.cause = message.cause().substr(0, kMaxCauseBytes);
  return report;
}

pb::AgentOrder to_proto(const cluster::AgentOrder& order) {
  pb::AgentOrder message;
  message.set_kind(static_cast<int>(order.kind));
  message.set_round(order.round);
  message.set_first_rank(order.first_rank);
  message.set_num_ranks(order.num_ranks);
  message.set_world_size(order.world_size);
  message.set_master_port(order.master_port);
  message.set_restart(order.restart);
  message.set_exit_code(order.exit_code);
  message.set_text(order.text);
  return message;
}

Result<cluster::AgentOrder> from_proto(const pb::AgentOrder& message) {
  if (message.kind() < 0 || message.kind() > static_cast<int>(cluster::AgentOrder::Kind::kEnd)) {
    return error(Code::kInvalidArgument, "the rendezvous answers with order {}, which this version does not know", message.kind());
  }
  cluster::AgentOrder order;
  order.kind = static_cast<cluster::AgentOrder::Kind>(message.kind());
  order.round = message.round();
  order.first_rank = message.first_rank();
  order.num_ranks = message.num_ranks();
  order.world_size = message.world_size();
  order.master_port = message.master_port();
  order.restart = message.restart();
  order.exit_code = message.exit_code();
  order.text = message.text();
  return order;
}

// Later lives of a rendezvous, also on another machine, have larger numbers.
int64_t first_round() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

class RendezvousServer::Impl final : public pb::Rendezvous::CallbackService {
 public:
  explicit Impl(const cluster::RendezvousOptions& options) : rendezvous_(options, first_round(), Clock::now()) {}
  ~Impl() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
  }

  std::optional<Error> listen(bool loopback_only, int port) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(loopback_only ? join_address("127.0.0.1", port) : join_address("::", port), grpc::InsecureServerCredentials(), &port_);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // two rendezvous on one port would part a job
    builder.SetMaxReceiveMessageSize(kMaxReportBytes);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (server_ && port_ != 0) return std::nullopt;
    return error(Code::kUnavailable, "the rendezvous cannot listen on port {}: it is taken (ss -ltnp 'sport = :{}' names by whom), or not permitted; choose another in "
                 "--rdzv-endpoint, on all machines", port, port);
  }

  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] bool all_told() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return rendezvous_.all_told();
  }

  grpc::ServerUnaryReactor* Report(grpc::CallbackServerContext* context, const pb::AgentReport* request, pb::AgentOrder* response) override {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const auto report = from_proto(*request);
    const auto order = report ? answer(report.value()) : Result<cluster::AgentOrder>(report.error());
    if (order.ok()) *response = to_proto(order.value());
    reactor->Finish(order.ok() ? grpc::Status::OK : to_status(order.error()));
    return reactor;
  }

 private:
  Result<cluster::AgentOrder> answer(const cluster::AgentReport& report) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return rendezvous_.report(report, Clock::now());
  }

  Mutex mutex_;
  cluster::Rendezvous rendezvous_ GUARDED_BY(mutex_);
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;  // last: its destructor waits for the calls, which use the rendezvous
};

RendezvousServer::RendezvousServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RendezvousServer::~RendezvousServer() = default;

Result<std::unique_ptr<RendezvousServer>> RendezvousServer::start(const cluster::RendezvousOptions& options, bool loopback_only, int port) {
  auto impl = std::make_unique<Impl>(options);
  if (auto failure = impl->listen(loopback_only, port)) return *failure;
  return std::unique_ptr<RendezvousServer>(new RendezvousServer(std::move(impl)));
}

int RendezvousServer::port() const { return impl_->port(); }
bool RendezvousServer::all_told() const { return impl_->all_told(); }

class RendezvousClient::Impl {
 public:
  explicit Impl(const std::string& address) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = pb::Rendezvous::NewStub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  }

  Result<cluster::AgentOrder> report(const cluster::AgentReport& report, Deadline deadline) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline.remaining());
    pb::AgentOrder order;
    const grpc::Status status = stub_->Report(&context, to_proto(report), &order);
    if (!status.ok()) return to_error(status);
    return from_proto(order);
  }

 private:
  std::unique_ptr<pb::Rendezvous::Stub> stub_;
};

RendezvousClient::RendezvousClient(const std::string& host, int port) : impl_(std::make_unique<Impl>(join_address(host, port))) {}
RendezvousClient::~RendezvousClient() = default;

Result<cluster::AgentOrder> RendezvousClient::report(const cluster::AgentReport& report, Deadline deadline) { return impl_->report(report, deadline); }

}  // namespace penstock::rpc
