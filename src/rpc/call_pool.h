#pragma once
// Threads for calls that wait: the management API loads models and drains workers, which gRPC's own threads must not wait for.
#include <functional>
#include <thread>
#include <vector>

#include "base/channel.h"

namespace penstock::rpc {

// Threads: run() from any thread; calls run on the pool's threads, as many at once as it has.
// Close:   the destructor lets the calls that were taken end, and joins.
class CallPool {
 public:
  CallPool(int num_threads, size_t max_waiting);
  ~CallPool();
  CallPool(const CallPool&) = delete;
  CallPool& operator=(const CallPool&) = delete;

  // false: too many wait; the call is not taken. It must not throw.
  [[nodiscard]] bool run(std::function<void()> call);

 private:
  Channel<std::function<void()>> waiting_;
  std::vector<std::thread> threads_;
};

}  // namespace penstock::rpc
