#include "frontend/failure_limit.h"

#include <algorithm>

namespace penstock::frontend {

double FailureLimit::level(const Bucket& bucket, Clock::time_point now) const {
  return std::max(0.0, bucket.failures - to_seconds(now - bucket.at) * per_minute_ / 60);
}

bool FailureLimit::blocked(const std::string& peer, Clock::time_point now) const {
  const auto found = buckets_.find(peer);
  return found != buckets_.end() && level(found->second, now) + 1 > per_minute_;
}

bool FailureLimit::add(const std::string& peer, Clock::time_point now) {
  if (buckets_.size() >= max_peers_ && !buckets_.contains(peer)) {
    std::erase_if(buckets_, [&](const auto& entry) { return level(entry.second, now) == 0; });
    if (buckets_.size() >= max_peers_) buckets_.clear();
  }
  const bool before = blocked(peer, now);
  Bucket& bucket = buckets_[peer];
  bucket = {level(bucket, now) + 1, now};
  return !before && blocked(peer, now);
}

}  // namespace penstock::frontend
