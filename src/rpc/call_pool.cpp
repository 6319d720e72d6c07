#include "rpc/call_pool.h"

#include <utility>

namespace penstock::rpc {
namespace {

Error stopping() { return Error(Code::kUnavailable, "the server is shutting down; nothing was done"); }

}  // namespace

CallPool::CallPool(std::string what, int num_threads, size_t max_waiting, size_t max_waiting_bytes)
    : what_(std::move(what)), max_waiting_(max_waiting), max_waiting_bytes_(max_waiting_bytes), waiting_(max_waiting) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this] {
      while (auto call = waiting_.take(Deadline::never())) {
        waiting_bytes_ -= call->bytes;
        waiting_.closed() ? call->refuse(stopping()) : call->run();
      }
    });
  }
}

CallPool::~CallPool() { finish(); }

void CallPool::finish() {
  close();
  MutexLock lock(joining_);  // held while waiting: who also waits here waits for the same
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

bool CallPool::take_room(size_t bytes) {
  const size_t before = waiting_bytes_.fetch_add(bytes);
  if (before == 0 || before + bytes <= max_waiting_bytes_) return true;
  waiting_bytes_ -= bytes;
  return false;
}

void CallPool::run(std::function<void()> call, std::function<void(const Error&)> refuse, size_t bytes) {
  if (!take_room(bytes)) return refuse(error(Code::kResourceExhausted, "{} of {} bytes wait already; try again later", what_, waiting_bytes_.load()));
  Call waiting{std::move(call), std::move(refuse), bytes};
  const Put put = waiting_.try_put(std::move(waiting));
  if (put == Put::kDone) return;
  waiting_bytes_ -= bytes;
  waiting.refuse(put == Put::kFull ? error(Code::kResourceExhausted, "{} {} wait already; try again later", max_waiting_, what_) : stopping());
}

// The threads may all be busy for minutes: what waits does not wait for them.
void CallPool::close() {
  waiting_.close();
  while (const auto call = waiting_.try_take()) {
    waiting_bytes_ -= call->bytes;
    call->refuse(stopping());
  }
}

}  // namespace penstock::rpc
