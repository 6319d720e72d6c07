#include "base/nearest_key.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock {
namespace {

const std::vector<std::string_view> kKnown = {"minWorkers", "maxWorkers", "batchSize", "nproc-per-node"};

TEST(NearestKey, FindsTheKeyThatWasMeant) {
  EXPECT_EQ(nearest_key("minWorker", kKnown), "minWorkers");
  EXPECT_EQ(nearest_key("maxworkers", kKnown), "maxWorkers");
  EXPECT_EQ(nearest_key("bacthSize", kKnown), "batchSize");
  EXPECT_EQ(nearest_key("nproc_per_node", kKnown), "nproc-per-node");
  EXPECT_EQ(nearest_key("", kKnown), "batchSize") << "the shortest is nearest to nothing";
}

TEST(NearestKey, CountsASwapOfNeighboursAsOneEdit) {
  const std::vector<std::string_view> known = {"abxx", "ba"};
  EXPECT_EQ(nearest_key("ab", known), "ba");
}

TEST(NearestKey, SaysBothKeysAndShortensAnOverlongOne) {
  EXPECT_EQ(unknown_key("batchsise", kKnown), "unknown key 'batchsise'; did you mean 'batchSize'?");
  EXPECT_LT(unknown_key(std::string(1 << 20, 'x'), kKnown).size(), 300u);
}

}  // namespace
}  // namespace penstock
