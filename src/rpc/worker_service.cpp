#include "rpc/worker_service.h"

#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>
#include <sys/un.h>

#include <limits>
#include <set>
#include <string>
#include <utility>

#include "rpc/call_pool.h"
#include "rpc/status_map.h"
#include "rpc/worker_stream_reactor.h"
#include "worker.grpc.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::worker::v1;

constexpr size_t kMaxIntake = size_t{1} << 16;  // requests that no backend has taken yet; the front door sends far fewer, and limits their bytes

void drain(const Backend& backend) {
  if (backend.engine) backend.engine->drain();
  if (backend.handler) backend.handler->drain();
}

void describe(const Backend& backend, pb::WorkerInfo& message) {
  if (backend.engine) {
    const engine::EngineInfo info = backend.engine->info();
    message.set_architecture(info.architecture);
    message.set_max_sequence_tokens(info.max_sequence_tokens);
    message.set_max_concurrent(info.max_concurrent);
    message.set_num_stages(info.num_stages);
  } else {
    const handler::HandlerInfo info = backend.handler->info();
    message.set_architecture(info.name);
    message.set_max_concurrent(info.max_concurrent);
    message.set_num_stages(1);
  }
}

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

  void set_backend(const Backend& backend) EXCLUDES(mutex_) {
    std::set<ReadyReactor*> waiting;
    bool draining = false;
    {
      MutexLock lock(mutex_);
      backend_ = backend;
      waiting.swap(waiting_for_ready_);
      draining = draining_;
    }
    if (draining) drain(backend);
    for (ReadyReactor* reactor : waiting) reactor->answer(backend);
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

  // Streams would wait for the front door's end.
  void shutdown(Deadline deadline) EXCLUDES(mutex_) {
    std::set<std::shared_ptr<WorkerStream>> streams;
    {
      MutexLock lock(mutex_);
      streams = streams_;
    }
    for (const auto& stream : streams) stream->finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the worker is stopping"));
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + std::min<Clock::duration>(deadline.remaining(), std::chrono::hours(24)));
    intake_.finish();
  }

  grpc::ServerUnaryReactor* WaitReady(grpc::CallbackServerContext*, const pb::WaitReadyRequest*, pb::WorkerInfo* info) override {
    auto* reactor = new ReadyReactor(*this, *info);
    start_waiting(*reactor);
    return reactor;
  }

  WorkerStream::Reactor* Work(grpc::CallbackServerContext*) override { return new WorkReactor(*this); }

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
    void answer(const Backend& backend) {
      describe(backend, info_);
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

  // A front door's stream.
  class WorkReactor final : public WorkerStream::Reactor {
   public:
    explicit WorkReactor(Impl& impl) : impl_(impl), stream_(std::make_shared<WorkerStream>(*this, impl.intake_)) {
      impl_.add(stream_);
      StartRead(&commands_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) return stream_->abort(grpc::Status::CANCELLED);
      for (pb::Command& command : *commands_.mutable_commands()) impl_.carry_out(std::move(command), *stream_);
      StartRead(&commands_);
    }
    void OnWriteDone(bool ok) override { stream_->written(ok); }
    void OnCancel() override { stream_->abort(grpc::Status::CANCELLED); }
    void OnDone() override {
      impl_.remove(stream_);
      delete this;  // gRPC's last word on this call
    }

   private:
    Impl& impl_;
    const std::shared_ptr<WorkerStream> stream_;
    pb::Commands commands_;
  };

  // Waits, without a thread, until no request runs. Finish belongs to whoever takes it out of waiting_for_drain_.
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
    Backend backend;
    std::optional<Error> failure;
    {
      MutexLock lock(mutex_);
      if (!backend_.loaded() && !failure_) {
        waiting_for_ready_.insert(&reactor);
        return;
      }
      backend = backend_;
      failure = failure_;
    }
    if (failure) reactor.Finish(to_status(*failure));
    else reactor.answer(backend);
  }
  bool stop_waiting(ReadyReactor& reactor) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return waiting_for_ready_.erase(&reactor) > 0;
  }

  void add(const std::shared_ptr<WorkerStream>& stream) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    streams_.insert(stream);
  }
  void remove(const std::shared_ptr<WorkerStream>& stream) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    streams_.erase(stream);
  }

  void carry_out(pb::Command command, WorkerStream& stream) EXCLUDES(mutex_) {
    if (command.what_case() == pb::Command::kCancel) return stream.cancel(command.id());
    Backend backend;
    {
      MutexLock lock(mutex_);
      if (backend_.loaded() && !failure_ && !draining_) {
        backend = backend_;
        ++running_;
      }
    }
    if (backend.loaded()) return stream.submit(std::move(command), backend, RunningRequest([this] { end_request(); }));
    stream.refuse(command.id(), Error(Code::kUnavailable, "the worker takes no requests: its model is still loading, or it is stopping"));
  }
  void end_request() EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      --running_;
    }
    tell_drained();
  }

  void start_draining(DrainReactor& reactor) EXCLUDES(mutex_) {
    Backend backend;
    {
      MutexLock lock(mutex_);
      draining_ = true;
      backend = backend_;
      waiting_for_drain_.insert(&reactor);
    }
    const auto tell = [this, backend]() EXCLUDES(mutex_) {
      drain(backend);
      {
        MutexLock lock(mutex_);
        backend_drains_ = true;
      }
      tell_drained();
    };
    intake_.run(tell, [tell](const Error&) { tell(); });  // behind the requests that wait there
  }
  void tell_drained() EXCLUDES(mutex_) {
    std::set<DrainReactor*> drained;
    {
      MutexLock lock(mutex_);
      if (running_ == 0 && backend_drains_) drained.swap(waiting_for_drain_);
    }
    for (DrainReactor* reactor : drained) reactor->Finish(grpc::Status::OK);
  }
  bool stop_draining(DrainReactor& reactor) EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return waiting_for_drain_.erase(&reactor) > 0;
  }

  CallPool intake_{"requests", 1, kMaxIntake};
  Mutex mutex_;
  Backend backend_ GUARDED_BY(mutex_);
  std::optional<Error> failure_ GUARDED_BY(mutex_);
  bool draining_ GUARDED_BY(mutex_) = false;
  bool backend_drains_ GUARDED_BY(mutex_) = false;  // it was told to
  int running_ GUARDED_BY(mutex_) = 0;
  std::set<ReadyReactor*> waiting_for_ready_ GUARDED_BY(mutex_);
  std::set<DrainReactor*> waiting_for_drain_ GUARDED_BY(mutex_);
  std::set<std::shared_ptr<WorkerStream>> streams_ GUARDED_BY(mutex_);
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

void WorkerService::set_engine(engine::Engine& engine) { impl_->set_backend({.engine = &engine, .handler = nullptr}); }
void WorkerService::set_handler(handler::Handler& handler) { impl_->set_backend({.engine = nullptr, .handler = &handler}); }
void WorkerService::set_failed(const Error& reason) { impl_->set_failed(reason); }
void WorkerService::shutdown(Deadline deadline) { impl_->shutdown(deadline); }

}  // namespace penstock::rpc
