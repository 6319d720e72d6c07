#pragma once
// Work that several threads do, handed back in the order in which it was given.
#include <deque>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "base/channel.h"
#include "base/error.h"

namespace penstock::data {

// At most 2 pieces a thread are under way: memory is bounded, and no thread idles while the oldest piece is waited for.
//
// Threads: one gives and takes; `threads` work, and end with the destructor, which waits for the pieces in hand.
template <typename Out>
class OrderedPool {
 public:
  explicit OrderedPool(int threads) : capacity_(2 * static_cast<size_t>(threads)), work_(capacity_) {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([this] {
        while (auto piece = work_.take(Deadline::never())) (*piece)();  // the destructor closes the channel
      });
    }
  }
  ~OrderedPool() {
    while (work_.try_take()) {  // on the way out of an error, what has not begun is not wanted
    }
    work_.close();
    for (std::thread& thread : threads_) thread.join();
  }
  OrderedPool(const OrderedPool&) = delete;
  OrderedPool& operator=(const OrderedPool&) = delete;

  [[nodiscard]] bool full() const { return results_.size() >= capacity_; }
  [[nodiscard]] bool empty() const { return results_.empty(); }

  // REQUIRES: !full().
  template <typename F>
  void give(F work) {
    std::packaged_task<Out()> piece(std::move(work));
    results_.push_back(piece.get_future());
    PENSTOCK_CHECK(work_.try_put(std::move(piece)) == Put::kDone, "more pieces under way than there is room for");
  }
  // Takes its turn as if a piece of work had thrown it.
  void give_failure(std::exception_ptr failure) {
    std::promise<Out> promise;
    results_.push_back(promise.get_future());
    promise.set_exception(std::move(failure));
  }
  // The oldest; waits until it is done, which is up to the work. Throws what the work threw. REQUIRES: !empty().
  Out take() {
    std::future<Out> oldest = std::move(results_.front());
    results_.pop_front();
    return oldest.get();
  }

 private:
  const size_t capacity_;
  Channel<std::packaged_task<Out()>> work_;
  std::deque<std::future<Out>> results_;
  std::vector<std::thread> threads_;
};

}  // namespace penstock::data
