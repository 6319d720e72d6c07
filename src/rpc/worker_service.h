#pragma once
// The worker's side of proto/worker.proto: rank 0 of a worker group answers the front door on a unix socket.
#include <filesystem>
#include <memory>

#include "base/clock.h"
#include "base/error.h"
#include "engine/engine.h"
#include "handler/handler.h"

namespace penstock::rpc {

// Serves WaitReady, Drain, and Work, whose requests go either to an engine or to a handler. Listens at once; engine or handler
// come later, when the model is loaded.
//
// Threads:  every method from any thread. A thread of the service gives requests to engine or handler, in their
//           order; gRPC's own threads cancel them.
// Lifetime: engine and handler must outlive shutdown(). The destructor is shutdown() with no time left.
// Errors:   one that throws is answered as INTERNAL; nothing leaves a gRPC callback as an exception.
class WorkerService {
 public:
  // kInvalidArgument: the path is longer than a unix socket's may be; kUnavailable: it cannot be bound.
  [[nodiscard]] static Result<std::unique_ptr<WorkerService>> start(const std::filesystem::path& socket);
  ~WorkerService();
  WorkerService(const WorkerService&) = delete;
  WorkerService& operator=(const WorkerService&) = delete;

  // The model is loaded on every rank: WaitReady answers, requests are taken. One of the two is called, at most once.
  void set_engine(engine::Engine& engine);
  void set_handler(handler::Handler& handler);
  // Loading has failed: WaitReady answers with the reason, now and later.
  void set_failed(const Error& reason);

  // Takes no new calls, lets the running ones end until the deadline, then cancels them. Calling twice is harmless.
  void shutdown(Deadline deadline);

 private:
  class Impl;
  explicit WorkerService(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::rpc
