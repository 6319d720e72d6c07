#include "rpc/grpc_worker_client.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <limits>
#include <utility>

#include "rpc/status_map.h"
#include "rpc/worker_messages.h"
#include "rpc/worker_client_reactor.h"
#include "worker.grpc.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::worker::v1;

constexpr const char* kStreamEnded = "the worker has ended its stream";

void set_deadline(grpc::ClientContext& context, Deadline deadline) {
  if (!deadline.is_never()) context.set_deadline(std::chrono::system_clock::now() + deadline.remaining());
}

// One request on a stream.
class StreamedCall final : public frontend::WorkerCall {
 public:
  StreamedCall(std::shared_ptr<WorkerStreamClient> stream, uint64_t id) : stream_(std::move(stream)), id_(id) {}
  void cancel() override { stream_->cancel(id_); }

 private:
  const std::shared_ptr<WorkerStreamClient> stream_;
  const uint64_t id_;
};

// For a request that could not be started.
class EndedCall final : public frontend::WorkerCall {
 public:
  void cancel() override {}
};

class GrpcWorkerClient final : public frontend::WorkerClient {
 public:
  explicit GrpcWorkerClient(const std::filesystem::path& socket) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
    // The worker is on this machine and binds its socket within a second or so of being started: look again soon.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 20);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    stub_ = pb::Worker::NewStub(grpc::CreateCustomChannel("unix:" + socket.string(), grpc::InsecureChannelCredentials(), arguments));
  }
  ~GrpcWorkerClient() override {
    if (const auto stream = opened()) stream->leave();
  }

  Result<frontend::WorkerInfo> wait_ready(Deadline deadline) override {
    grpc::ClientContext context;
    set_deadline(context, deadline);
    context.set_wait_for_ready(true);
    pb::WorkerInfo info;
    const grpc::Status status = stub_->WaitReady(&context, {}, &info);
    if (!status.ok()) return to_error(status);
    return frontend::WorkerInfo{info.architecture(), info.max_sequence_tokens(), info.max_concurrent(), info.num_stages()};
  }

  std::shared_ptr<frontend::WorkerCall> start(const frontend::Payload& payload, std::shared_ptr<frontend::RequestObserver> observer) override
      EXCLUDES(mutex_) {
    const auto stream = open();
    if (const auto id = stream->start(to_command(payload), observer)) return std::make_shared<StreamedCall>(stream, *id);
    observer->on_done(Error(Code::kUnavailable, kStreamEnded));
    return std::make_shared<EndedCall>();
  }

  std::optional<Error> broken() override EXCLUDES(mutex_) {
    const auto stream = opened();
    return stream && stream->broken() ? std::optional(Error(Code::kUnavailable, kStreamEnded)) : std::nullopt;
  }

  std::optional<frontend::EngineFigures> engine_figures() const override EXCLUDES(mutex_) {
    const auto stream = opened();
    return stream ? stream->engine_figures() : std::nullopt;
  }

  bool drain(Deadline deadline) override {
    grpc::ClientContext context;
    set_deadline(context, deadline);
    pb::DrainResponse response;
    return stub_->Drain(&context, {}, &response).ok();
  }

 private:
  // The stream is opened by the first request: before that the worker may not listen yet.
  std::shared_ptr<WorkerStreamClient> open() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!stream_) stream_ = std::make_shared<WorkerStreamClient>(*stub_);
    return stream_;
  }
  std::shared_ptr<WorkerStreamClient> opened() const EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return stream_;
  }

  std::unique_ptr<pb::Worker::Stub> stub_;
  mutable Mutex mutex_;
  std::shared_ptr<WorkerStreamClient> stream_ GUARDED_BY(mutex_);
};

}  // namespace

std::shared_ptr<frontend::WorkerClient> make_grpc_worker_client(const std::filesystem::path& socket) {
  return std::make_shared<GrpcWorkerClient>(socket);
}

}  // namespace penstock::rpc
