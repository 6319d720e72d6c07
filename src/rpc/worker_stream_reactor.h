#pragma once
// The worker's end of the one stream that carries all requests of a front door and all their events. Included by worker_service.cpp only.
#include "base/clock.h"
#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "handler/handler.h"
#include "rpc/call_pool.h"
#include "worker.grpc.pb.h"

namespace penstock::rpc {

// What a worker runs: one of the two, once it is loaded. Borrowed.
struct Backend {
  engine::Engine* engine = nullptr;
  handler::Handler* handler = nullptr;
  [[nodiscard]] bool loaded() const { return engine || handler; }
};

// Counts a request as running until it is destroyed.
class RunningRequest {
 public:
  explicit RunningRequest(std::function<void()> ended) : ended_(std::move(ended)) {}
  RunningRequest(RunningRequest&& other) noexcept : ended_(std::exchange(other.ended_, nullptr)) {}
  RunningRequest& operator=(RunningRequest&&) = delete;
  ~RunningRequest() {
    if (ended_) ended_();
  }

 private:
  std::function<void()> ended_;
};

// Between engine or handler and the front door: events wait here while one message is being written, and then go together. A request
// counts as running until its last event is written.
//
// Threads: every method from any thread. Shared: an engine may hold a request's sink, and that the stream, longer than the call lives.
class WorkerStream final : public std::enable_shared_from_this<WorkerStream> {
 public:
  using Reactor = grpc::ServerBidiReactor<worker::v1::Commands, worker::v1::Events>;
  // `intake`: where backends take requests, which may be long work: prompts become tokens, schemas grammars. One thread, so that they keep their order.
  WorkerStream(Reactor& reactor, CallPool& intake) : reactor_(reactor), intake_(intake) {}

  // Has the backend take a request, unless it is cancelled first. What the backend refuses or throws becomes the request's end.
  void submit(worker::v1::Command command, const Backend& backend, RunningRequest running) EXCLUDES(mutex_);
  void refuse(uint64_t id, const Error& why) EXCLUDES(mutex_);
  void cancel(uint64_t id) EXCLUDES(mutex_);

  // false: nobody waits for it any more.
  [[nodiscard]] bool push(uint64_t id, worker::v1::Event event, bool last) EXCLUDES(mutex_);
  void written(bool ok) EXCLUDES(mutex_);
  // No more requests; the stream ends when what waits is written.
  void finish(const grpc::Status& status) EXCLUDES(mutex_);
  // What runs is cancelled, what waits is dropped.
  void abort(const grpc::Status& status) EXCLUDES(mutex_);

 private:
  struct Entry {
    RunningRequest running;
    std::function<void()> cancel;  // set when the backend has taken it
  };
  enum class Next { kNothing, kWrite, kFinish };

  [[nodiscard]] Next advance() REQUIRES(mutex_);
  void act(Next next);
  void take(const worker::v1::Command& command, const Backend& backend) EXCLUDES(mutex_);
  void taken(uint64_t id, std::function<void()> cancel) EXCLUDES(mutex_);
  template <typename Source>
  void hand_over(uint64_t id, Source& backend, const worker::v1::Command& command) EXCLUDES(mutex_);

  Reactor& reactor_;  // touched only when advance() says so, and then the call has not ended
  CallPool& intake_;
  worker::v1::Events sending_;                                         // changed only while no write is in flight
  std::vector<RunningRequest> sending_ends_;                           // of the requests whose last event is in it
  Mutex mutex_;
  std::unordered_map<uint64_t, Entry> running_ GUARDED_BY(mutex_);
  const engine::Engine* engine_ GUARDED_BY(mutex_) = nullptr;  // that the requests go to, if it is one
  worker::v1::Events waiting_ GUARDED_BY(mutex_);
  size_t waiting_bytes_ GUARDED_BY(mutex_) = 0;
  std::vector<RunningRequest> waiting_ends_ GUARDED_BY(mutex_);
  std::optional<grpc::Status> outcome_ GUARDED_BY(mutex_);             // set: no more requests
  bool writing_ GUARDED_BY(mutex_) = false;
  Clock::time_point write_began_ GUARDED_BY(mutex_);
  bool finished_ GUARDED_BY(mutex_) = false;
};

}  // namespace penstock::rpc
