#include "rpc/call_pool.h"

#include <utility>

namespace penstock::rpc {
namespace {

Error stopping() { return Error(Code::kUnavailable, "the server is shutting down; nothing was done"); }

}  // namespace

CallPool::CallPool(std::string what, int num_threads, size_t max_waiting) : what_(std::move(what)), max_waiting_(max_waiting), waiting_(max_waiting) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] {
      while (auto call = waiting_.take(Deadline::never())) waiting_.closed() ? call->refuse(stopping()) : call->run();
    });
  }
}

CallPool::~CallPool() {
  close();
  for (std::thread& thread : threads_) thread.join();
}

void CallPool::run(std::function<void()> call, std::function<void(const Error&)> refuse) {
  Call waiting{std::move(call), std::move(refuse)};
  switch (waiting_.try_put(std::move(waiting))) {
    case Put::kDone: return;
    case Put::kFull: return waiting.refuse(error(Code::kResourceExhausted, "{} {} wait already; try again later", max_waiting_, what_));
    case Put::kClosed: return waiting.refuse(stopping());
  }
}

// The threads may all be busy for minutes: what waits does not wait for them.
void CallPool::close() {
  waiting_.close();
  while (const auto call = waiting_.try_take()) call->refuse(stopping());
}

}  // namespace penstock::rpc
