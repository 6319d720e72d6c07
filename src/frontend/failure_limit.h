#pragma once
// How many failures each peer may have: a bucket for each, which empties with time.
#include <cstddef>
#include <string>
#include <unordered_map>

#include "base/clock.h"

namespace penstock::frontend {

// A peer that has failed `per_minute` times at once is blocked until its bucket, which loses `per_minute` failures in a minute, has room again.
//
// Threads: none of its own; the caller locks.
// Memory:  at most `max_peers` buckets. When all are in use, all are forgotten: who has so many addresses is not stopped by a limit on addresses.
class FailureLimit {
 public:
  FailureLimit(int per_minute, size_t max_peers) : per_minute_(per_minute), max_peers_(max_peers) {}

  // True: nothing that this peer sends is looked at now.
  [[nodiscard]] bool blocked(const std::string& peer, Clock::time_point now) const;
  // True: with this failure the peer becomes blocked.
  [[nodiscard]] bool add(const std::string& peer, Clock::time_point now);

 private:
  struct Bucket {
    double failures = 0;
    Clock::time_point at;
  };
  [[nodiscard]] double level(const Bucket& bucket, Clock::time_point now) const;

  const double per_minute_;
  const size_t max_peers_;
  std::unordered_map<std::string, Bucket> buckets_;
};

}  // namespace penstock::frontend
