#include "rpc/worker_service.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>
#include <sys/un.h>

#include <limits>
#include <set>
#include <string>
#include <utility>

#include "rpc/outbound_queue.h"
#include "rpc/status_map.h"
#include "worker.grpc.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::worker::v1;

// The front door reads as fast as it can; a thousand waiting messages mean that it hangs.
constexpr size_t kMaxWaitingMessages = 1024;

text::GenerationRequest from_proto(const pb::GenerateRequest& request) {
  text::GenerationRequest result;
  result.prompt = request.prompt();
  const pb::Sampling& sampling = request.sampling();
  result.sampling.max_tokens = sampling.max_tokens();
  result.sampling.temperature = sampling.temperature();
  result.sampling.top_k = sampling.top_k();
  result.sampling.top_p = sampling.top_p();
  if (sampling.has_seed()) result.sampling.seed = sampling.seed();
  result.sampling.stop.assign(sampling.stop().begin(), sampling.stop().end());
  return result;
}

pb::GenerateEvent to_proto(engine::GenerationEvent& event) {
  pb::GenerateEvent message;
  message.set_text(std::move(event.text));
  message.set_token_id(event.token_id);
  message.set_step_ms(event.step_ms);
  if (event.finished) {
    pb::Finish* finish = message.mutable_finish();
    finish->set_reason(event.reason == engine::FinishReason::kLength ? "length" : "stop");
    finish->set_prompt_tokens(event.usage.prompt_tokens);
    finish->set_completion_tokens(event.usage.completion_tokens);
    finish->set_median_step_ms(event.usage.median_step_ms);
  }
  return message;
}

// Between the engine thread and one gRPC stream. Shared: the engine may hold it longer than the call lives.
// `reactor_` is touched only when the queue says so, and then the call cannot have ended (outbound_queue.h).
class GenerateSink final : public engine::EventSink {
 public:
  explicit GenerateSink(grpc::ServerWriteReactor<pb::GenerateEvent>& reactor) : reactor_(reactor) {}

  bool push(engine::GenerationEvent event) override {
    const bool finished = event.finished;
    if (finished && event.reason == engine::FinishReason::kError) {
      close(event.error);
    } else if (finished && event.reason == engine::FinishReason::kCancelled) {
      close(Error(Code::kCancelled, "the generation was cancelled"));
    } else {
      act(queue_.push(to_proto(event)));
      if (finished) close(std::nullopt);
    }
    return finished || !queue_.closed();
  }

  void close(std::optional<Error> outcome) { act(queue_.close(std::move(outcome))); }
  void abort(Error outcome) { act(queue_.abort(std::move(outcome))); }
  void written(bool ok) { act(queue_.written(ok)); }
  [[nodiscard]] bool closed() const { return queue_.closed(); }

 private:
  void act(Next next) {
    if (next == Next::kWrite) reactor_.StartWrite(&queue_.current());
    if (next == Next::kFinish) reactor_.Finish(queue_.outcome() ? to_status(*queue_.outcome()) : grpc::Status::OK);
  }

  grpc::ServerWriteReactor<pb::GenerateEvent>& reactor_;
  OutboundQueue<pb::GenerateEvent> queue_{kMaxWaitingMessages};
};

}  // namespace

class WorkerService::Impl final : public pb::Worker::CallbackService {
 public:
  ~Impl() override { shutdown(Deadline::after(milliseconds(0))); }

  // kUnavailable when the socket cannot be bound.
  std::optional<Error> listen(const std::filesystem::path& socket) {
    grpc::ServerBuilder builder;
    // The front door has already limited what a client may send (max_request_size).
    builder.SetMaxReceiveMessageSize(std::numeric_limits<int>::max());
    builder.AddListeningPort("unix:" + socket.string(), grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    if (server_) return std::nullopt;
    return error(Code::kUnavailable, "cannot listen on the unix socket {}; is its folder there and writable?", socket.string());
  }

  void set_engine(engine::Engine& engine) EXCLUDES(mutex_) {
    std::set<ReadyReactor*> waiting;
    bool draining = false;
    {
      MutexLock lock(mutex_);
      engine_ = &engine;
      waiting.swap(waiting_for_ready_);
      draining = draining_;
    }
    if (draining) engine.drain();
    for (ReadyReactor* reactor : waiting) reactor->answer(engine);
  }

  void set_failed(const Error& reason) EXCLUDES(mutex_) {
    // The front door takes these two codes as "not yet, ask again" (frontend/worker_client.h).
    const bool sounds_temporary = reason.code() == Code::kUnavailable || reason.code() == Code::kDeadlineExceeded;
    const Error final_reason(sounds_temporary ? Code::kInternal : reason.code(), reason.message());
    std::set<ReadyReactor*> waiting;
    {
      MutexLock lock(mutex_);
      if (!failure_) failure_ = final_reason;
      waiting.swap(waiting_for_ready_);
    }
    for (ReadyReactor* reactor : waiting) reactor->Finish(to_status(final_reason));
  }

  void shutdown(Deadline deadline) {
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::min<Clock::duration>(deadline.remaining(), std::chrono::hours(24)));
  }

  grpc::ServerUnaryReactor* WaitReady(grpc::CallbackServerContext*, const pb::WaitReadyRequest*, pb::WorkerInfo* info) override {
    auto* reactor = new ReadyReactor(*this, *info);
    start_waiting(*reactor);
    return reactor;
  }

  grpc::ServerWriteReactor<pb::GenerateEvent>* Generate(grpc::CallbackServerContext*, const pb::GenerateRequest* request) override {
    return new GenerateReactor(*this, *request);
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext*, const pb::DrainRequest*, pb::DrainResponse*) override {
    auto* reactor = new DrainReactor(*this);
    start_draining(*reactor);
    return reactor;
  }

 private:
  // Waits, without a thread, until the model is loaded or has failed to load. Finish belongs to whoever takes
  // the reactor out of waiting_for_ready_.
  class ReadyReactor final : public grpc::ServerUnaryReactor {
   public:
    ReadyReactor(Impl& impl, pb::WorkerInfo& info) : impl_(impl), info_(info) {}
    void answer(engine::Engine& engine) {
      const engine::EngineInfo info = engine.info();
      info_.set_architecture(info.architecture);
      info_.set_max_sequence_tokens(info.max_sequence_tokens);
      info_.set_max_concurrent(info.max_concurrent);
      info_.set_num_stages(info.num_stages);
      Finish(grpc::Status::OK);
    }
    void OnCancel() override {
      if (impl_.stop_waiting(*this)) Finish(grpc::Status::CANCELLED);
    }
    void OnDone() override { delete this; }  // gRPC's last word on this call

   private:
    Impl& impl_;
    pb::WorkerInfo& info_;
  };

  // One generation.
  class GenerateReactor final : public grpc::ServerWriteReactor<pb::GenerateEvent> {
   public:
    GenerateReactor(Impl& impl, const pb::GenerateRequest& request) : impl_(impl), sink_(std::make_shared<GenerateSink>(*this)) {
      engine_ = impl_.begin_generation();
      if (!engine_) {
        sink_->close(Error(Code::kUnavailable, "the worker takes no requests: its model is still loading, or it is stopping"));
        return;
      }
      try {
        auto submitted = engine_->submit(from_proto(request), sink_);
        if (submitted) id_ = *submitted;
        else sink_->close(submitted.error());
      } catch (const std::exception& failure) {
        sink_->close(error(Code::kInternal, "the engine failed to take the request: {}", failure.what()));
      }
    }
    void OnWriteDone(bool ok) override {
      sink_->written(ok);
      if (!ok) cancel_engine();
    }
    void OnCancel() override {
      sink_->abort(Error(Code::kCancelled, "the caller has gone"));  // first: from now on the engine's events are refused
      cancel_engine();
    }
    void OnDone() override {
      if (engine_) impl_.end_generation();
      delete this;  // gRPC's last word on this call
    }

   private:
    void cancel_engine() {
      if (engine_ && id_) engine_->cancel(*id_);
    }
    Impl& impl_;
    const std::shared_ptr<GenerateSink> sink_;
    engine::Engine* engine_ = nullptr;
    std::optional<engine::RequestId> id_;  // written before the reactor is handed to gRPC
  };

  // Waits, without a thread, until no generation runs. Finish belongs to whoever takes it out of waiting_for_drain_.
  class DrainReactor final : public grpc::ServerUnaryReactor {
   public:
    explicit DrainReactor(Impl& impl) : impl_(impl) {}
    void OnCancel() override {
      if (impl_.stop_draining(*this)) Finish(grpc::Status::CANCELLED);
    }
    void OnDone() override { delete this; }  // gRPC's last word on this call

   private:
    Impl& impl_;
  };

  void start_waiting(ReadyReactor& reactor) EXCLUDES(mutex_) {
    engine::Engine* engine = nullptr;
    std::optional<Error> failure;
    {
      MutexLock lock(mutex_);
      if (!engine_ && !failure_) {
        waiting_for_ready_.insert(&reactor);
        return;
      }
      engine = engine_;
      failure = failure_;
    }
    if (failure) reactor.Finish(to_status(*failure));
    else reactor.answer(*engine);
  }
  bool stop_waiting(ReadyReactor& reactor) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return waiting_for_ready_.erase(&reactor) > 0;
  }

  // The engine, and one more running generation; or null when none may start.
  engine::Engine* begin_generation() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (!engine_ || failure_ || draining_) return nullptr;
    ++running_;
    return engine_;
  }
  void end_generation() EXCLUDES(mutex_) {
    std::set<DrainReactor*> drained;
    {
      MutexLock lock(mutex_);
      if (--running_ == 0) drained.swap(waiting_for_drain_);
    }
    for (DrainReactor* reactor : drained) reactor->Finish(grpc::Status::OK);
  }

  void start_draining(DrainReactor& reactor) EXCLUDES(mutex_) {
    engine::Engine* engine = nullptr;
    bool idle = false;
    {
      MutexLock lock(mutex_);
      draining_ = true;
      engine = engine_;
      idle = running_ == 0;
      if (!idle) waiting_for_drain_.insert(&reactor);
    }
    if (engine) engine->drain();
    if (idle) reactor.Finish(grpc::Status::OK);
  }
  bool stop_draining(DrainReactor& reactor) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return waiting_for_drain_.erase(&reactor) > 0;
  }

  Mutex mutex_;
  engine::Engine* engine_ GUARDED_BY(mutex_) = nullptr;
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  bool draining_ GUARDED_BY(mutex_) = false;
  int running_ GUARDED_BY(mutex_) = 0;
  std::set<ReadyReactor*> waiting_for_ready_ GUARDED_BY(mutex_);
  std::set<DrainReactor*> waiting_for_drain_ GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Server> server_;  // last: its destructor waits for the calls, which use the members above
};

WorkerService::WorkerService(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WorkerService::~WorkerService() = default;

Result<std::unique_ptr<WorkerService>> WorkerService::start(const std::filesystem::path& socket) {
  constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;
  if (socket.native().size() > kMaxPath) {
    return error(Code::kInvalidArgument, "the socket path {} has {} bytes; a unix socket's has at most {}: set TMPDIR to a shorter folder",
                 socket.string(), socket.native().size(), kMaxPath);
  }
  auto impl = std::make_unique<Impl>();
  if (auto failure = impl->listen(socket)) return *failure;
  return std::unique_ptr<WorkerService>(new WorkerService(std::move(impl)));
}

void WorkerService::set_engine(engine::Engine& engine) { impl_->set_engine(engine); }
void WorkerService::set_failed(const Error& reason) { impl_->set_failed(reason); }
void WorkerService::shutdown(Deadline deadline) { impl_->shutdown(deadline); }

}  // namespace penstock::rpc
