#pragma once
// The front door's end of the one stream that carries all requests to a worker and all their events back. Internal to rpc/.
#include "base/mutex.h"  // before gRPC's headers: absl, too, has a macro GUARDED_BY, and only a system header may define it again

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>

#include "frontend/worker_client.h"
#include "worker.grpc.pb.h"

namespace penstock::rpc {

// What waits to be sent goes in one message, so that many small events cost little more than one.
//
// Threads:  every method from any thread; observers are called by gRPC's threads, one at a time, and by cancel(), with no lock held.
// Lifetime: leave() has returned before it is destroyed.
//
// Note [Who destroys a channel]
// The last channel (or server) of a process takes gRPC's callback threads with it, and waits for them to end. When a callback itself drops
// that last reference, the thread waits for itself and gRPC frees its queue twice. A ClientContext holds a reference to its channel, so leave()
// gives it up: whoever destroys the last handle of a request, which keeps this object, then holds no channel.
class WorkerStreamClient final : public grpc::ClientBidiReactor<worker::v1::Commands, worker::v1::Events> {
 public:
  explicit WorkerStreamClient(worker::v1::Worker::Stub& stub);

  // nullopt: the stream has ended, and nothing was started. `command` has no id yet.
  [[nodiscard]] std::optional<uint64_t> start(worker::v1::Command command, std::shared_ptr<frontend::RequestObserver> observer) EXCLUDES(mutex_);
  // The observer hears of its end, kCancelled, before this returns, unless it has ended already: a worker that hangs delays nobody.
  void cancel(uint64_t id) EXCLUDES(mutex_);
  // Nothing more can be sent.
  [[nodiscard]] bool broken() EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return broken_;
  }
  // Ends the stream and waits until gRPC is done with it. What still runs ends as cancelled. Never by a thread that calls observers.
  void leave() EXCLUDES(mutex_);

  // What the worker's engine said last.
  [[nodiscard]] std::optional<frontend::EngineFigures> engine_figures() EXCLUDES(mutex_);

  void OnReadDone(bool ok) override EXCLUDES(mutex_);
  void OnWriteDone(bool ok) override EXCLUDES(mutex_);
  void OnDone(const grpc::Status& status) override EXCLUDES(mutex_);

 private:
  void deliver(worker::v1::Event& event) EXCLUDES(mutex_);
  // True: the caller must StartWrite(&sending_), without the lock.
  [[nodiscard]] bool take_waiting() REQUIRES(mutex_);
  [[nodiscard]] std::shared_ptr<frontend::RequestObserver> take(uint64_t id) REQUIRES(mutex_);

  std::unique_ptr<grpc::ClientContext> context_ = std::make_unique<grpc::ClientContext>();
  worker::v1::Events received_;
  worker::v1::Commands sending_;  // changed only while no write is in flight
  Mutex mutex_;
  CondVar changed_;
  std::unordered_map<uint64_t, std::shared_ptr<frontend::RequestObserver>> running_ GUARDED_BY(mutex_);
  std::optional<frontend::EngineFigures> figures_ GUARDED_BY(mutex_);
  worker::v1::Commands waiting_ GUARDED_BY(mutex_);
  uint64_t next_id_ GUARDED_BY(mutex_) = 1;
  bool writing_ GUARDED_BY(mutex_) = false;
  bool broken_ GUARDED_BY(mutex_) = false;  // nothing more can be sent
  bool done_ GUARDED_BY(mutex_) = false;    // gRPC's last word was said, and every observer has heard of it
};

}  // namespace penstock::rpc
