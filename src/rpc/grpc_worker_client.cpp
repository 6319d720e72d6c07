#include "rpc/grpc_worker_client.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <limits>
#include <utility>

#include "rpc/status_map.h"
#include "worker.grpc.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::worker::v1;

pb::GenerateRequest to_proto(const text::GenerationRequest& request) {
  pb::GenerateRequest message;
  message.set_prompt(request.prompt);
  pb::Sampling& sampling = *message.mutable_sampling();
  sampling.set_max_tokens(request.sampling.max_tokens);
  sampling.set_temperature(request.sampling.temperature);
  sampling.set_top_k(request.sampling.top_k);
  sampling.set_top_p(request.sampling.top_p);
  if (request.sampling.seed) sampling.set_seed(*request.sampling.seed);
  for (const std::string& stop : request.sampling.stop) sampling.add_stop(stop);
  return message;
}

pb::PredictRequest to_proto(const handler::Request& request) {
  pb::PredictRequest message;
  message.set_id(request.id);
  for (const auto& [name, value] : request.headers) {
    pb::Header* header = message.add_headers();
    header->set_name(name);
    header->set_value(value);
  }
  for (const handler::Part& from : request.parts) {
    pb::Part* part = message.add_parts();
    part->set_name(from.name);
    part->set_content_type(from.content_type);
    part->set_data(from.bytes);
  }
  return message;
}

frontend::WorkerEvent from_proto(pb::PredictEvent& message) {
  frontend::WorkerEvent event;
  event.bytes = std::move(*message.mutable_data());
  event.last = message.last();
  if (message.has_head()) {
    auto& head = event.head.emplace(handler::AnswerHead{message.head().status(), message.head().content_type(), {}});
    for (const pb::Header& header : message.head().headers()) head.headers.emplace_back(header.name(), header.value());
  }
  return event;
}

frontend::WorkerEvent from_proto(pb::GenerateEvent& message) {
  frontend::WorkerEvent event;
  event.bytes = std::move(*message.mutable_text());
  event.token_id = message.token_id();
  event.step_ms = message.step_ms();
  if (message.has_finish()) {
    event.finished = frontend::FinishedInfo{message.finish().reason(), message.finish().prompt_tokens(),
                                            message.finish().completion_tokens(), message.finish().median_step_ms()};
  }
  return event;
}

void set_deadline(grpc::ClientContext& context, Deadline deadline) {
  if (!deadline.is_never()) context.set_deadline(std::chrono::system_clock::now() + deadline.remaining());
}

// Note [Who destroys a channel]
// The last channel (or server) of a process takes gRPC's callback threads with it, and waits for them to end. When a callback
// itself drops that last reference, the thread waits for itself and gRPC frees its queue twice. A ClientContext holds a reference
// to its channel, so a call gives up its context before it reports its end; the client, which outlives the report
// (frontend/worker_client.h), then holds the last one.

// One request: reads the stream as fast as it comes and hands each event on.
template <typename Request, typename Event>
class StreamCall final : public frontend::WorkerCall, public grpc::ClientReadReactor<Event> {
 public:
  StreamCall(Request request, std::shared_ptr<frontend::RequestObserver> observer)
      : request_(std::move(request)), observer_(std::move(observer)) {}

  // `begin` makes the call of its context, its request and its reactor.
  template <typename Begin>
  static std::shared_ptr<StreamCall> start(Request request, std::shared_ptr<frontend::RequestObserver> observer, const Begin& begin) {
    auto call = std::make_shared<StreamCall>(std::move(request), std::move(observer));
    call->self_ = call;
    grpc::ClientContext* context = nullptr;
    {
      MutexLock lock(call->mutex_);
      context = call->context_.get();
    }
    begin(context, &call->request_, call.get());
    call->StartRead(&call->message_);
    call->StartCall();
    return call;
  }

  // Under the lock, so that the context cannot go meanwhile; gRPC runs no callback inside TryCancel.
  void cancel() override EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (context_) context_->TryCancel();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    if (!observer_->on_event(from_proto(message_))) cancel();
    this->StartRead(&message_);
  }
  void OnDone(const grpc::Status& status) override {
    const auto self = std::move(self_);  // gRPC's last word on this call; the handle may live on
    {
      MutexLock lock(mutex_);
      context_.reset();  // Note [Who destroys a channel]
    }
    observer_->on_done(status.ok() ? std::nullopt : std::optional<Error>(to_error(status)));
    observer_.reset();
  }

 private:
  const Request request_;
  std::shared_ptr<frontend::RequestObserver> observer_;
  Mutex mutex_;
  std::unique_ptr<grpc::ClientContext> context_ GUARDED_BY(mutex_) = std::make_unique<grpc::ClientContext>();
  Event message_;
  std::shared_ptr<StreamCall> self_;  // alive until OnDone
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

  Result<frontend::WorkerInfo> wait_ready(Deadline deadline) override {
    grpc::ClientContext context;
    set_deadline(context, deadline);
    context.set_wait_for_ready(true);
    pb::WorkerInfo info;
    const grpc::Status status = stub_->WaitReady(&context, {}, &info);
    if (!status.ok()) return to_error(status);
    return frontend::WorkerInfo{info.architecture(), info.max_sequence_tokens(), info.max_concurrent(), info.num_stages()};
  }

  std::shared_ptr<frontend::WorkerCall> start(const frontend::Payload& payload, std::shared_ptr<frontend::RequestObserver> observer) override {
    if (const auto* text = std::get_if<text::GenerationRequest>(&payload)) {
      return StreamCall<pb::GenerateRequest, pb::GenerateEvent>::start(
          to_proto(*text), std::move(observer), [this](auto* context, auto* request, auto* call) { stub_->async()->Generate(context, request, call); });
    }
    return StreamCall<pb::PredictRequest, pb::PredictEvent>::start(
        to_proto(std::get<handler::Request>(payload)), std::move(observer),
        [this](auto* context, auto* request, auto* call) { stub_->async()->Predict(context, request, call); });
  }

  bool drain(Deadline deadline) override {
    grpc::ClientContext context;
    set_deadline(context, deadline);
    pb::DrainResponse response;
    return stub_->Drain(&context, {}, &response).ok();
  }

 private:
  std::unique_ptr<pb::Worker::Stub> stub_;
};

}  // namespace

std::shared_ptr<frontend::WorkerClient> make_grpc_worker_client(const std::filesystem::path& socket) {
  return std::make_shared<GrpcWorkerClient>(socket);
}

}  // namespace penstock::rpc
