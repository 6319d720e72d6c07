#pragma once
// Many calls of penstock.v1.Generate at once, each of them timed: what `penstock bench serve` sends.
#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "rpc/client_channel.h"
#include "rpc/load_plan.h"
#include "rpc/load_report.h"

namespace penstock::rpc {

// What all requests have in common.
struct LoadSampling {
  std::string model;
  std::string version;     // empty = the default one
  double temperature = 0;
  bool ignore_eos = false;
};

// Threads: every method from any thread; `done` is called by gRPC's threads.
// Lifetime: the destructor cancels what runs and waits until its `done` has been called.
class LoadClient {
 public:
  // Connects in connect(), `connections` times.
  LoadClient(const ServerAddress& server, LoadSampling sampling, int connections);
  ~LoadClient();
  // false: no server answers.
  [[nodiscard]] bool connect(Deadline deadline);
  // Sends a request; returns at once. `done` is called once, when it has ended; it must not block.
  void send(const LoadPrompt& prompt, Deadline deadline, std::function<void(LoadResult)> done);
  // Ends all that run, with kCancelled.
  void cancel_all();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::rpc
