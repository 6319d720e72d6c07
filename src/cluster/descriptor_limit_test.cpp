#include "cluster/descriptor_limit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

namespace penstock::cluster {
namespace {

TEST(DescriptorLimit, IsRaisedAsFarAsAllowed) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  ASSERT_GT(limit.rlim_max, 64u);
  const rlimit low{64, limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_GT(raise_descriptor_limit(), 64);
  rlimit after{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, limit.rlim_max);
}

}  // namespace
}  // namespace penstock::cluster
