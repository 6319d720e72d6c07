#include "frontend/failure_limit.h"

#include <gtest/gtest.h>

namespace penstock::frontend {
namespace {

const Clock::time_point kStart{};

TEST(FailureLimit, BlocksAPeerAfterItsFailuresAndNobodyElse) {
  FailureLimit limit(3, 10);
  EXPECT_FALSE(limit.add("a", kStart));
  EXPECT_FALSE(limit.add("a", kStart));
  EXPECT_FALSE(limit.blocked("a", kStart));
  EXPECT_TRUE(limit.add("a", kStart)) << "said once";
  EXPECT_FALSE(limit.add("a", kStart));
  EXPECT_TRUE(limit.blocked("a", kStart));
  EXPECT_FALSE(limit.blocked("b", kStart));
}

TEST(FailureLimit, LetsAPeerInAgainAsTimePasses) {
  FailureLimit limit(6, 10);
  for (int i = 0; i < 6; ++i) (void)limit.add("a", kStart);
  EXPECT_TRUE(limit.blocked("a", kStart + seconds(9)));
  EXPECT_FALSE(limit.blocked("a", kStart + seconds(10))) << "6 a minute: one every 10 s";
  EXPECT_TRUE(limit.add("a", kStart + seconds(10)));
  EXPECT_FALSE(limit.blocked("a", kStart + seconds(71)));
}

TEST(FailureLimit, HoldsABoundedNumberOfPeers) {
  FailureLimit limit(1, 3);
  EXPECT_TRUE(limit.add("a", kStart));
  EXPECT_TRUE(limit.add("b", kStart + seconds(50)));
  EXPECT_TRUE(limit.add("c", kStart + seconds(50)));
  EXPECT_TRUE(limit.add("d", kStart + seconds(61))) << "the bucket of a is empty by now and makes room";
  EXPECT_TRUE(limit.blocked("b", kStart + seconds(61)));
  EXPECT_TRUE(limit.add("e", kStart + seconds(61)));
  EXPECT_FALSE(limit.blocked("b", kStart + seconds(61))) << "all were in use, all are forgotten";
  EXPECT_TRUE(limit.blocked("e", kStart + seconds(61)));
}

}  // namespace
}  // namespace penstock::frontend
