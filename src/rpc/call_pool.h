#pragma once
// Threads for calls that wait: the management API loads models and drains workers, which gRPC's own threads must not wait for.
#include <atomic>
#include <cstddef>
#include <functional>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "base/channel.h"
#include "base/error.h"
#include "base/mutex.h"

namespace penstock::rpc {

// Threads: every method from any thread; calls run on the pool's threads, as many at once as it has.
// Close:   what waits is refused at once, what runs ends; the destructor closes and joins.
class CallPool {
 public:
  // `what` names the calls in refusals: "management calls". At most so many wait, and so many bytes with them.
  CallPool(std::string what, int num_threads, size_t max_waiting, size_t max_waiting_bytes = std::numeric_limits<size_t>::max());
  ~CallPool();
  CallPool(const CallPool&) = delete;
  CallPool& operator=(const CallPool&) = delete;

  // Exactly one of the two is called: `call` on a thread of the pool, or `refuse`, by this or by another thread, with kResourceExhausted when too
  // many wait or with kUnavailable after close(). Neither may throw. `bytes`: about what the call holds while it waits; one call alone may hold any number.
  void run(std::function<void()> call, std::function<void(const Error&)> refuse, size_t bytes = 0);

  // Harmless when called twice.
  void close();
  // Closes, and waits for the calls that run. Not from one of them.
  void finish() EXCLUDES(joining_);

 private:
  struct Call {
    std::function<void()> run;
    std::function<void(const Error&)> refuse;
    size_t bytes;
  };
  [[nodiscard]] bool take_room(size_t bytes);

  const std::string what_;
  const size_t max_waiting_, max_waiting_bytes_;
  std::atomic<size_t> waiting_bytes_{0};
  Channel<Call> waiting_;
  Mutex joining_;
  std::vector<std::thread> threads_ GUARDED_BY(joining_);
};

}  // namespace penstock::rpc
