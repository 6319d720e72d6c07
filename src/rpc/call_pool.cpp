#include "rpc/call_pool.h"

#include <utility>

namespace penstock::rpc {

CallPool::CallPool(int num_threads, size_t max_waiting) : waiting_(max_waiting) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] {
      while (auto call = waiting_.take(Deadline::never())) (*call)();
    });
  }
}

CallPool::~CallPool() {
  waiting_.close();
  for (std::thread& thread : threads_) thread.join();
}

bool CallPool::run(std::function<void()> call) { return waiting_.try_put(std::move(call)) == Put::kDone; }

}  // namespace penstock::rpc
