#include "plan/bucket_plan.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"

namespace penstock::plan {
namespace {

// "0@0 1@64 | 2@0" = parameters at their offsets, buckets separated.
std::string drawn(const BucketPlan& plan) {
  std::string text;
  for (const Bucket& bucket : plan.buckets) {
    text += text.empty() ? "" : "| ";
    for (const int p : bucket.parameters) text += fmt::format("{}@{} ", p, plan.slots[static_cast<size_t>(p)].offset_bytes);
  }
  return text;
}

TEST(BucketPlan, FillsFromTheFrontAndKeepsTheLastSmall) {
  const std::vector<int64_t> sizes = {128, 128, 128, 64, 64, 64, 64};
  EXPECT_EQ(drawn(plan_buckets(sizes, {256, 128})), "0@0 1@128 | 2@0 3@128 4@192 | 5@0 6@64 ");
}

TEST(BucketPlan, PadsEachParameterToACacheLine) {
  const BucketPlan plan = plan_buckets(std::vector<int64_t>{4, 65, 4}, {1024, 1024});
  EXPECT_EQ(drawn(plan), "0@0 1@64 2@192 ");
  EXPECT_EQ(plan.buckets[0].size_bytes, 256);
}

TEST(BucketPlan, GivesAnOversizedParameterItsOwnBucket) {
  EXPECT_EQ(drawn(plan_buckets(std::vector<int64_t>{64, 1000, 64, 64}, {128, 64})), "0@0 | 1@0 | 2@0 | 3@0 ");
  EXPECT_EQ(drawn(plan_buckets(std::vector<int64_t>{64, 64, 1000}, {128, 64})), "0@0 1@64 | 2@0 ");
}

TEST(BucketPlan, GivesAParameterItsOwnBucketWhereThatIsAskedFor) {
  const std::vector<int64_t> sizes = {64, 64, 64, 64, 64};
  EXPECT_EQ(drawn(plan_buckets(sizes, {1024, 128}, {false, true, false, false, false})), "0@0 | 1@0 | 2@0 | 3@0 4@64 ");
  EXPECT_EQ(drawn(plan_buckets(sizes, {1024, 1024}, {true, true, false, false, true})), "0@0 | 1@0 | 2@0 3@64 | 4@0 ");
  EXPECT_EQ(drawn(plan_buckets(sizes, {1024, 1024}, std::vector<bool>(5))), "0@0 1@64 2@128 3@192 4@256 ");
}

TEST(BucketPlan, HoldsEveryParameterOnceWithinTheLimits) {
  std::mt19937 random(1);
  for (int round = 0; round < 500; ++round) {
    std::vector<int64_t> sizes(random() % 30);
    for (int64_t& size : sizes) size = 1 + random() % 700;
    const BucketLimits limits{static_cast<int64_t>(64 + random() % 2000), static_cast<int64_t>(1 + random() % 600)};
    const BucketPlan plan = plan_buckets(sizes, limits);
    ASSERT_EQ(plan.slots.size(), sizes.size());
    size_t next = 0;
    for (size_t b = 0; b < plan.buckets.size(); ++b) {
      const Bucket& bucket = plan.buckets[b];
      const int64_t limit = b + 1 == plan.buckets.size() ? std::min(limits.bucket_bytes, limits.last_bucket_bytes) : limits.bucket_bytes;
      EXPECT_TRUE(bucket.size_bytes <= limit || bucket.parameters.size() == 1) << bucket.size_bytes << " > " << limit;
      int64_t end = 0;
      for (const int parameter : bucket.parameters) {
        const BucketSlot& slot = plan.slots[next];
        EXPECT_EQ(parameter, static_cast<int>(next));
        EXPECT_EQ(slot.bucket, static_cast<int>(b));
        EXPECT_EQ(slot.offset_bytes % kBucketAlignment, 0);
        EXPECT_GE(slot.offset_bytes, end);
        end = slot.offset_bytes + slot.size_bytes;
        EXPECT_LE(end, bucket.size_bytes);
        EXPECT_EQ(slot.size_bytes, sizes[next++]);
      }
    }
    EXPECT_EQ(next, sizes.size());
  }
}

TEST(BucketPlan, OfNothingHasNoBucketAndOfAnEmptyParameterIsABug) {
  EXPECT_TRUE(plan_buckets({}, {}).buckets.empty());
  EXPECT_THROW((void)plan_buckets(std::vector<int64_t>{4, 0}, {}), Bug);
}

}  // namespace
}  // namespace penstock::plan
