#pragma once
// Which waiting requests run together, and when. Pure: the caller says what time it is.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace penstock::handler {

// Requests of one `key` fit together. A batch is due when `max_size` of one key wait, or the oldest of its key has waited `max_delay`
// (TorchServe's batchSize and maxBatchDelay); of several that are due, the one with the oldest request goes first. Requests of one key stay in
// the order of their coming.
//
// Threads: one at a time.
class Batcher {
 public:
  Batcher(size_t max_size, milliseconds max_delay) : max_size_(std::max<size_t>(1, max_size)), max_delay_(max_delay) {}

  void add(uint64_t id, std::string key, Clock::time_point now) { waiting_.push_back({id, std::move(key), now}); }
  void remove(uint64_t id) {
    waiting_.remove_if([&](const Waiting& w) { return w.id == id; });
  }
  // The ids of a batch that is due, in order; empty: none is.
  [[nodiscard]] std::vector<uint64_t> take(Clock::time_point now) {
    const auto first = std::find_if(waiting_.begin(), waiting_.end(), [&](const Waiting& w) {
      return w.since + max_delay_ <= now || count(w.key) >= max_size_;
    });
    std::vector<uint64_t> batch;
    if (first == waiting_.end()) return batch;
    const std::string key = first->key;
    for (auto it = waiting_.begin(); it != waiting_.end() && batch.size() < max_size_;) {
      if (it->key != key) {
        ++it;
        continue;
      }
      batch.push_back(it->id);
      it = waiting_.erase(it);
    }
    return batch;
  }
  // When a batch will be due if nothing else comes; nullopt: nothing waits.
  [[nodiscard]] std::optional<Clock::time_point> next_due() const {
    if (waiting_.empty()) return std::nullopt;
    return waiting_.front().since + max_delay_;
  }
  [[nodiscard]] size_t size() const { return waiting_.size(); }

 private:
  struct Waiting {
    uint64_t id;
    std::string key;
    Clock::time_point since;
  };
  [[nodiscard]] size_t count(const std::string& key) const {
    return static_cast<size_t>(std::count_if(waiting_.begin(), waiting_.end(), [&](const Waiting& w) { return w.key == key; }));
  }

  const size_t max_size_;
  const milliseconds max_delay_;
  std::list<Waiting> waiting_;  // in the order of their coming; as many as the front door lets run at once
};

}  // namespace penstock::handler
