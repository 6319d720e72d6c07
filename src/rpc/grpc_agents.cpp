#include "rpc/grpc_agents.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>
#include <openssl/crypto.h>

#include <deque>
#include <functional>
#include <iterator>
#include <thread>
#include <utility>

#include "agents.grpc.pb.h"
#include "base/log.h"
#include "frontend/failure_limit.h"
#include "rpc/agent_wire.h"
#include "rpc/grpc_credentials.h"
#include "rpc/grpc_server.h"
#include "rpc/outbound_queue.h"
#include "rpc/status_map.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::agents::v1;

constexpr int kMaxMessageBytes = 1 << 20;
constexpr size_t kMaxWaitingOrders = 4096;
constexpr size_t kMaxPeers = 4096;
// A side that is silent is asked for a sign of life after the first, and gone after the second.
constexpr int kPingAfterMs = 2000;
constexpr int kPingTimeoutMs = 3000;

// One agent's stream at the front door.
//
// Threads:  gRPC's, one reaction at a time; orders come from any thread.
// Lifetime: it holds itself until gRPC is done with it; the pool may hold it longer.
class AgentStream final : public grpc::ServerBidiReactor<pb::Report, pb::Order>, public frontend::AgentLink, public std::enable_shared_from_this<AgentStream> {
 public:
  explicit AgentStream(frontend::AgentPool& pool) : pool_(pool) {}
  void begin() {
    self_ = shared_from_this();
    StartRead(&received_);
  }
  void refuse(const Error& why) {
    self_ = shared_from_this();
    close(why);
  }

  void start_ranks(const cluster::StartRanks& start) override { send(to_order(start)); }
  void stop_ranks(const cluster::StopRanks& stop) override { send(to_order(stop)); }

  void OnReadDone(bool ok) override {
    if (!ok) return close(std::nullopt);  // it has left
    if (auto wrong = take(received_)) return close(*wrong);
    StartRead(&received_);
  }
  void OnWriteDone(bool ok) override { act(queue_.written(ok)); }
  void OnCancel() override { act(queue_.abort(Error(Code::kCancelled, "the connection is lost"))); }
  void OnDone() override {
    if (number_) pool_.leave(*number_, "its connection has ended");
    self_.reset();  // the last line: it may be the end of this object
  }

 private:
  std::optional<Error> take(const pb::Report& report) {
    if (!number_) {
      auto hello = hello_of(report);
      if (!hello) return hello.error();
      auto number = pool_.join(*hello, shared_from_this());
      if (!number) return number.error();
      number_ = *number;
      pb::Order order;
      order.mutable_welcome();
      send(std::move(order));
      return std::nullopt;
    }
    auto ranks = ranks_report_of(report);
    if (!ranks) return ranks.error();
    pool_.report(*number_, *ranks);
    return std::nullopt;
  }
  void send(pb::Order order) { act(queue_.push(std::move(order))); }
  void close(std::optional<Error> why) { act(queue_.close(std::move(why))); }
  void act(Next next) {
    if (next == Next::kWrite) StartWrite(&queue_.current());
    if (next == Next::kFinish) Finish(queue_.outcome() ? to_status(*queue_.outcome()) : grpc::Status::OK);
  }

  frontend::AgentPool& pool_;
  pb::Report received_;
  std::optional<uint64_t> number_;  // owned by the reading reaction, and the last one
  OutboundQueue<pb::Order> queue_{kMaxWaitingOrders};
  std::shared_ptr<AgentStream> self_;
};

void set_keepalive(const std::function<void(const char*, int)>& set) {
  set(GRPC_ARG_KEEPALIVE_TIME_MS, kPingAfterMs);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingTimeoutMs);
  set(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  set(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kPingAfterMs / 2);
  set(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
}

// "ipv4:10.0.0.2:41000" without the port.
std::string host_of(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

}  // namespace

class AgentServer::Impl final : public pb::Agents::CallbackService {
 public:
  Impl(const AgentServerOptions& options, frontend::AgentPool& pool)
      : options_(options), pool_(pool), limit_(options.failures_per_minute, kMaxPeers) {}
  ~Impl() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
  }

  std::optional<Error> listen() {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(join_address(options_.host, options_.port), make_server_credentials(nullptr, frontend::kNoKey, options_.tls), &port);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    set_keepalive([&builder](const char* name, int value) { builder.AddChannelArgument(name, value); });
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (!server_ || port == 0) {
      return error(Code::kUnavailable, "cannot listen for agents on {}: it is taken (ss -ltnp 'sport = :{}' names by whom), not permitted, or no address of this "
                   "machine; choose another with --set agent_address=HOST:PORT", join_address(options_.host, options_.port), options_.port);
    }
    address_ = join_address(options_.host, port);
    return std::nullopt;
  }
  [[nodiscard]] const std::string& address() const { return address_; }

  grpc::ServerBidiReactor<pb::Report, pb::Order>* Join(grpc::CallbackServerContext* context) override {
    const auto stream = std::make_shared<AgentStream>(pool_);
    if (const auto refused = check(*context)) stream->refuse(*refused);
    else stream->begin();
    return stream.get();
  }

 private:
  std::optional<Error> check(const grpc::CallbackServerContext& context) EXCLUDES(mutex_) {
    if (options_.token.empty()) return std::nullopt;
    const std::string expected = "Bearer " + options_.token;
    const std::string peer = host_of(context.peer());
    const auto [first, end] = context.client_metadata().equal_range("authorization");
    const bool once = first != end && std::next(first) == end;
    MutexLock lock(mutex_);
    if (options_.failures_per_minute > 0 && limit_.blocked(peer, Clock::now())) return Error(Code::kResourceExhausted, "too many wrong tokens from this address; wait a minute");
    if (once && first->second.size() == expected.size() && CRYPTO_memcmp(first->second.data(), expected.data(), expected.size()) == 0) return std::nullopt;
    if (options_.failures_per_minute > 0) (void)limit_.add(peer, Clock::now());
    spdlog::warn("an agent at {} was refused: its token is wrong", peer);
    return Error(Code::kPermissionDenied, "the token is wrong, or there is none; both machines need the same --token-file");
  }

  const AgentServerOptions options_;
  frontend::AgentPool& pool_;
  std::string address_;
  Mutex mutex_;
  frontend::FailureLimit limit_ GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Server> server_;  // last: its destructor waits for the calls
};

AgentServer::AgentServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
AgentServer::~AgentServer() = default;

Result<std::unique_ptr<AgentServer>> AgentServer::start(const AgentServerOptions& options, frontend::AgentPool& pool) {
  auto impl = std::make_unique<Impl>(options, pool);
  if (auto failure = impl->listen()) return *failure;
  return std::unique_ptr<AgentServer>(new AgentServer(std::move(impl)));
}

const std::string& AgentServer::address() const { return impl_->address(); }

class AgentClient::Impl {
 public:
  Impl(const AgentClientOptions& options, const cluster::AgentHello& hello) {
    grpc::ChannelArguments arguments;
    set_keepalive([&arguments](const char* name, int value) { arguments.SetInt(name, value); });
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // every try connects anew
    stub_ = pb::Agents::NewStub(grpc::CreateCustomChannel(options.address, credentials(options), arguments));
    if (!options.token.empty()) context_.AddMetadata("authorization", "Bearer " + options.token);
    reader_ = std::thread([this, hello] { run(hello); });
  }
  ~Impl() {
    context_.TryCancel();
    reader_.join();
  }

  Result<std::optional<AgentOrder>> next(Deadline deadline) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    while (orders_.empty() && !failure_) {
      if (!changed_.wait(mutex_, deadline)) return std::optional<AgentOrder>();
    }
    if (orders_.empty()) return *failure_;
    AgentOrder order = std::move(orders_.front());
    orders_.pop_front();
    return std::optional<AgentOrder>(std::move(order));
  }

  void report(const cluster::RanksReport& report) EXCLUDES(writing_) {
    MutexLock lock(writing_);
    if (stream_) (void)stream_->Write(to_report(report));
  }

 private:
  static std::shared_ptr<grpc::ChannelCredentials> credentials(const AgentClientOptions& options) {
    if (options.authorities.empty()) return grpc::InsecureChannelCredentials();
    return grpc::SslCredentials({options.authorities, options.private_key, options.certificates});
  }

  void run(const cluster::AgentHello& hello) EXCLUDES(mutex_, writing_) {
    {
      MutexLock lock(writing_);
      stream_ = stub_->Join(&context_);
      (void)stream_->Write(to_report(hello));
    }
    std::optional<Error> failure;
    for (pb::Order message; !failure && stream_->Read(&message);) {
      auto order = order_of(message);
      if (!order) failure = order.error();
      MutexLock lock(mutex_);
      if (order) orders_.push_back(std::move(*order));
      changed_.notify_all();
    }
    if (failure) context_.TryCancel();
    grpc::Status status;
    {
      MutexLock lock(writing_);
      status = stream_->Finish();
    }
    if (!failure) failure = status.ok() ? Error(Code::kUnavailable, "the front door has ended the connection") : to_error(status);
    MutexLock lock(mutex_);
    failure_ = failure;
    changed_.notify_all();
  }

  std::unique_ptr<pb::Agents::Stub> stub_;
  grpc::ClientContext context_;
  Mutex writing_;  // around writes, which may take a while
  std::unique_ptr<grpc::ClientReaderWriter<pb::Report, pb::Order>> stream_;  // set once, under writing_; read by the reader without
  Mutex mutex_;
  CondVar changed_;
  std::deque<AgentOrder> orders_ GUARDED_BY(mutex_);
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  std::thread reader_;  // last: it uses the members above
};

AgentClient::AgentClient(const AgentClientOptions& options, const cluster::AgentHello& hello) : impl_(std::make_unique<Impl>(options, hello)) {}
AgentClient::~AgentClient() = default;
Result<std::optional<AgentOrder>> AgentClient::next(Deadline deadline) { return impl_->next(deadline); }
void AgentClient::report(const cluster::RanksReport& report) { impl_->report(report); }

}  // namespace penstock::rpc
