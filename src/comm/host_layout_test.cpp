#include "comm/host_layout.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace penstock::comm {
namespace {

TEST(HostLayout, RanksAreFoundByHostAndColumn) {
  const HostLayout layout = HostLayout::of({"a", "a", "b", "b", "c", "c"});
  EXPECT_EQ(layout.hosts, (std::vector<std::vector<int>>{{0, 1}, {2, 3}, {4, 5}}));
  EXPECT_EQ(layout.columns, 2);
  EXPECT_EQ(layout.host_of(3), 1);
  EXPECT_EQ(layout.column_of(3), 1);
  EXPECT_TRUE(layout.shared() && layout.regular() && !layout.one_host());
}

TEST(HostLayout, HostsOfUnequalSizeAndMixedNumbersAreNotRegular) {
  const HostLayout unequal = HostLayout::of({"a", "a", "a", "b"});
  EXPECT_EQ(unequal.columns, 1);
  EXPECT_EQ(unequal.column_of(2), 2);
  EXPECT_TRUE(unequal.shared() && !unequal.regular());
  const HostLayout mixed = HostLayout::of({"a", "b", "a", "b"});
  EXPECT_EQ(mixed.hosts, (std::vector<std::vector<int>>{{0, 2}, {1, 3}}));
  EXPECT_TRUE(mixed.shared() && !mixed.regular());
}

TEST(HostLayout, OneHostAndAHostForEachRank) {
  EXPECT_TRUE(HostLayout::of({"a", "a", "a"}).one_host());
  const HostLayout apart = HostLayout::of({"a", "b", "c"});
  EXPECT_FALSE(apart.shared());
  EXPECT_EQ(apart.columns, 1);
}

TEST(ThisHost, IsTheSameEachTimeAndCanBeOverridden) {
  EXPECT_EQ(this_host(), this_host());
  const std::string found = this_host();
  ::setenv("PENSTOCK_HOST_ID", "another", 1);
  EXPECT_EQ(this_host(), "another");
  ::unsetenv("PENSTOCK_HOST_ID");
  EXPECT_EQ(this_host(), found);
}

}  // namespace
}  // namespace penstock::comm
