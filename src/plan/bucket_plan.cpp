#include "plan/bucket_plan.h"

#include <algorithm>

#include "base/error.h"

namespace penstock::plan {

namespace {

int64_t padded(int64_t bytes) { return (bytes + kBucketAlignment - 1) / kBucketAlignment * kBucketAlignment; }

// A bucket ends before this parameter, whatever its size.
bool starts_bucket(size_t parameter, const std::vector<bool>& alone) {
  return !alone.empty() && parameter > 0 && (alone[parameter] || alone[parameter - 1]);
}

// The first parameter of the last bucket: as many from the end as its limit allows, at least one.
size_t first_of_last_bucket(std::span<const int64_t> sizes, const BucketLimits& limits, const std::vector<bool>& alone) {
  const int64_t limit = std::min(limits.bucket_bytes, limits.last_bucket_bytes);
  size_t first = sizes.size() - 1;
  int64_t held = padded(sizes[first]);
  while (first > 0 && !starts_bucket(first, alone) && held + padded(sizes[first - 1]) <= limit) held += padded(sizes[--first]);
  return first;
}

}  // namespace

BucketPlan plan_buckets(std::span<const int64_t> sizes_bytes, const BucketLimits& limits, const std::vector<bool>& alone) {
  PENSTOCK_CHECK(limits.bucket_bytes > 0 && limits.last_bucket_bytes > 0, "limits of {} and {} bytes", limits.bucket_bytes,
                 limits.last_bucket_bytes);
  PENSTOCK_CHECK(alone.empty() || alone.size() == sizes_bytes.size(), "{} flags for {} parameters", alone.size(), sizes_bytes.size());
  BucketPlan plan;
  if (sizes_bytes.empty()) return plan;
  const size_t last = first_of_last_bucket(sizes_bytes, limits, alone);
  for (size_t parameter = 0; parameter < sizes_bytes.size(); ++parameter) {
    const int64_t size = sizes_bytes[parameter];
    PENSTOCK_CHECK(size > 0, "parameter {} has {} bytes", parameter, size);
    const bool full = plan.buckets.empty() || plan.buckets.back().size_bytes + padded(size) > limits.bucket_bytes;
    if (full || parameter == last || starts_bucket(parameter, alone)) plan.buckets.emplace_back();
    Bucket& bucket = plan.buckets.back();
    plan.slots.push_back({static_cast<int>(plan.buckets.size()) - 1, bucket.size_bytes, size});
    bucket.parameters.push_back(static_cast<int>(parameter));
    bucket.size_bytes += padded(size);
  }
  return plan;
}

}  // namespace penstock::plan
