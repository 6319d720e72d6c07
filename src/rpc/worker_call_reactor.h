#pragma once
// The worker's side of one streaming call of proto/worker.proto, for both kinds of request. Included by worker_service.cpp only.
#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/engine.h"
#include "handler/handler.h"
#include "rpc/outbound_queue.h"
#include "rpc/status_map.h"
#include "worker.grpc.pb.h"

namespace penstock::rpc {

// The front door reads as fast as it can; a thousand waiting messages mean that it hangs.
inline constexpr size_t kMaxWaitingMessages = 1024;

// Between an engine's or a handler's threads and one gRPC stream. Shared: they may hold it longer than the call lives.
// `reactor_` is touched only when the queue says so, and then the call cannot have ended (outbound_queue.h).
template <typename Message>
class WorkerStream {
 public:
  explicit WorkerStream(grpc::ServerWriteReactor<Message>& reactor) : reactor_(reactor) {}
  void push_message(Message message) { act(queue_.push(std::move(message))); }
  void close(std::optional<Error> outcome) { act(queue_.close(std::move(outcome))); }
  void abort(Error outcome) { act(queue_.abort(std::move(outcome))); }
  void written(bool ok) { act(queue_.written(ok)); }
  [[nodiscard]] bool closed() const { return queue_.closed(); }

 private:
  void act(Next next) {
    if (next == Next::kWrite) reactor_.StartWrite(&queue_.current());
    if (next == Next::kFinish) reactor_.Finish(queue_.outcome() ? to_status(*queue_.outcome()) : grpc::Status::OK);
  }

  grpc::ServerWriteReactor<Message>& reactor_;
  OutboundQueue<Message> queue_{kMaxWaitingMessages};
};

// Text generation by an engine.
struct Generation {
  using Backend = engine::Engine;
  using Request = worker::v1::GenerateRequest;
  using Event = worker::v1::GenerateEvent;

  class Sink final : public engine::EventSink, public WorkerStream<Event> {
   public:
    using WorkerStream<Event>::WorkerStream;
    bool push(engine::GenerationEvent event) override {
      const bool finished = event.finished;
      if (finished && event.reason == engine::FinishReason::kError) {
        close(event.error);
      } else if (finished && event.reason == engine::FinishReason::kCancelled) {
        close(Error(Code::kCancelled, "the generation was cancelled"));
      } else {
        push_message(to_proto(event));
        if (finished) close(std::nullopt);
      }
      return finished || !closed();
    }
  };

  static text::GenerationRequest from_proto(const Request& request);
  static Event to_proto(engine::GenerationEvent& event);
};

// An answer of bytes by a handler.
struct Prediction {
  using Backend = handler::Handler;
  using Request = worker::v1::PredictRequest;
  using Event = worker::v1::PredictEvent;

  class Sink final : public handler::AnswerSink, public WorkerStream<Event> {
   public:
    using WorkerStream<Event>::WorkerStream;
    bool push(handler::AnswerEvent event) override {
      const bool last = event.last;
      if (last && event.failure) {
        close(event.failure);
      } else if (const auto bad = event.head ? check_head(*event.head) : std::nullopt) {
        close(bad);
      } else {
        push_message(to_proto(event));
        if (last) close(std::nullopt);
      }
      return last || !closed();
    }
  };

  static handler::Request from_proto(const Request& request);
  static Event to_proto(handler::AnswerEvent& event);
};

// One request. `Service` lends the backend while the call runs: Backend* begin<Backend>(), end_request().
template <typename Kind, typename Service>
class WorkerCallReactor final : public grpc::ServerWriteReactor<typename Kind::Event> {
 public:
  WorkerCallReactor(Service& service, const typename Kind::Request& request)
      : service_(service), sink_(std::make_shared<typename Kind::Sink>(*this)) {
    auto backend = service_.template begin<typename Kind::Backend>();
    if (!backend) {
      sink_->close(backend.error());
      return;
    }
    backend_ = *backend;
    try {
      auto submitted = backend_->submit(Kind::from_proto(request), sink_);
      if (submitted) id_ = *submitted;
      else sink_->close(submitted.error());
    } catch (const std::exception& failure) {
      sink_->close(error(Code::kInternal, "the worker failed to take the request: {}", failure.what()));
    }
  }
  void OnWriteDone(bool ok) override {
    sink_->written(ok);
    if (!ok) cancel_backend();
  }
  void OnCancel() override {
    sink_->abort(Error(Code::kCancelled, "the caller has gone"));  // first: from now on events are refused
    cancel_backend();
  }
  void OnDone() override {
    if (backend_) service_.end_request();
    delete this;  // gRPC's last word on this call
  }

 private:
  void cancel_backend() {
    if (backend_ && id_) backend_->cancel(*id_);
  }
  Service& service_;
  const std::shared_ptr<typename Kind::Sink> sink_;
  typename Kind::Backend* backend_ = nullptr;
  std::optional<uint64_t> id_;  // written before the reactor is handed to gRPC
};

}  // namespace penstock::rpc
