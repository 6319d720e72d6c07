#pragma once
// Threads for calls that wait: the management API loads models and drains workers, which gRPC's own threads must not wait for.
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/channel.h"
#include "base/error.h"

namespace penstock::rpc {

// Threads: every method from any thread; calls run on the pool's threads, as many at once as it has.
// Close:   what waits is refused at once, what runs ends; the destructor closes and joins.
class CallPool {
 public:
  // `what` names the calls in refusals: "management calls".
  CallPool(std::string what, int num_threads, size_t max_waiting);
  ~CallPool();
  CallPool(const CallPool&) = delete;
  CallPool& operator=(const CallPool&) = delete;

  // Exactly one of the two is called: `call` on a thread of the pool, or `refuse`, by this or by another thread, with kResourceExhausted when too
  // many wait or with kUnavailable after close(). Neither may throw.
  void run(std::function<void()> call, std::function<void(const Error&)> refuse);

  // Harmless when called twice.
  void close();

 private:
  struct Call {
    std::function<void()> run;
    std::function<void(const Error&)> refuse;
  };
  const std::string what_;
  const size_t max_waiting_;
  Channel<Call> waiting_;
  std::vector<std::thread> threads_;
};

}  // namespace penstock::rpc
