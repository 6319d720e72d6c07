#pragma once
// Which gradients are reduced together: flat buckets, in the order in which their gradients become ready.
#include <cstdint>
#include <span>
#include <vector>

namespace penstock::plan {

// A collective has a fixed cost, so a bucket should be large; the last one starts when no backward is left to hide it, so it should be small.
struct BucketLimits {
  int64_t bucket_bytes = 25 << 20;
  int64_t last_bucket_bytes = 1 << 20;
};

// Where one parameter's gradient lies.
struct BucketSlot {
  int bucket = 0;
  int64_t offset_bytes = 0;  // a multiple of kBucketAlignment
  int64_t size_bytes = 0;
};

struct Bucket {
  std::vector<int> parameters;  // positions in the input, ascending
  int64_t size_bytes = 0;       // with the padding between slots and after the last
};

struct BucketPlan {
  std::vector<Bucket> buckets;    // the first is complete first
  std::vector<BucketSlot> slots;  // one per parameter
};

inline constexpr int64_t kBucketAlignment = 64;  // a cache line, and the widest vector register

// `sizes_bytes` lists the parameters in the order in which their gradients become ready: the reverse of the forward order.
// Each parameter lies wholly in one bucket, in that order. A bucket holds at most `bucket_bytes`, the last at most `last_bucket_bytes`;
// only a parameter that alone is larger exceeds that, and then has its bucket for itself. Buckets fill from the front.
// `alone`: for each parameter whether it gets a bucket of its own; empty: none does.
// REQUIRES: sizes > 0, limits > 0.
[[nodiscard]] BucketPlan plan_buckets(std::span<const int64_t> sizes_bytes, const BucketLimits& limits, const std::vector<bool>& alone = {});

}  // namespace penstock::plan
