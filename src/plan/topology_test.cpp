#include "plan/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::plan {
namespace {

using testing::ElementsAre;

TEST(Topology, NumbersRanksRowMajor) {
  const Topology mesh{2, 3, 4};
  EXPECT_EQ(mesh.size(), 24);
  for (int rank = 0; rank < mesh.size(); ++rank) EXPECT_EQ(mesh.rank(mesh.coordinates(rank)), rank);
  EXPECT_EQ(mesh.coordinates(0), (Coordinates{0, 0, 0}));
  EXPECT_EQ(mesh.coordinates(1), (Coordinates{0, 0, 1}));
  EXPECT_EQ(mesh.coordinates(4), (Coordinates{0, 1, 0}));
  EXPECT_EQ(mesh.coordinates(12), (Coordinates{1, 0, 0}));
}

TEST(Topology, GroupsRanksThatDifferOnOneAxis) {
  const Topology mesh{2, 2, 2};
  EXPECT_THAT(mesh.groups(Axis::kPipe), ElementsAre(ElementsAre(0, 4), ElementsAre(1, 5), ElementsAre(2, 6), ElementsAre(3, 7)));
  EXPECT_THAT(mesh.groups(Axis::kData), ElementsAre(ElementsAre(0, 2), ElementsAre(1, 3), ElementsAre(4, 6), ElementsAre(5, 7)));
  EXPECT_THAT(mesh.groups(Axis::kTensor), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3), ElementsAre(4, 5), ElementsAre(6, 7)));
}

}  // namespace
}  // namespace penstock::plan
