#include "frontend/scale_planner.h"

#include <gtest/gtest.h>

namespace penstock::frontend {
namespace {

// A model of one to three groups with four places each; time goes in steps of 100 ms.
class ScalePlannerTest : public testing::Test {
 protected:
  // The plan after so much time in which the model looked like this all the while.
  int after(milliseconds time, size_t waiting, size_t running, int pending = 0) {
    int wanted = groups;
    for (milliseconds passed{0}; passed < time && wanted == groups; passed += milliseconds(100)) {
      now += milliseconds(100);
      wanted = planner.plan({groups, pending, 4, waiting, running}, limits, now);
    }
    return wanted;
  }
  ScalePlanner planner;
  const ScaleLimits limits{1, 3, milliseconds(2000), milliseconds(10000)};
  int groups = 1;
  Clock::time_point now;
};

TEST_F(ScalePlannerTest, RequestsThatWaitWithoutABreakCallForAGroup) {
  EXPECT_EQ(after(milliseconds(2000), 5, 4), 1) << "not yet";
  EXPECT_EQ(after(milliseconds(100), 5, 4), 2);
}

TEST_F(ScalePlannerTest, AMomentWithoutWaitingBeginsTheTimeAnew) {
  for (int burst = 0; burst < 10; ++burst) {
    EXPECT_EQ(after(milliseconds(1900), 5, 4), 1);
    EXPECT_EQ(after(milliseconds(100), 0, 4), 1);
  }
}

TEST_F(ScalePlannerTest, NoneIsAddedWhileOneIsOnItsWay) {
  groups = 2;
  EXPECT_EQ(after(milliseconds(60000), 50, 4, 1), 2);
  EXPECT_EQ(after(milliseconds(2100), 50, 8), 3) << "the time begins when it has come";
}

TEST_F(ScalePlannerTest, StaysWithinItsLimits) {
  groups = 3;
  EXPECT_EQ(after(milliseconds(60000), 50, 12), 3);
  groups = 1;
  EXPECT_EQ(after(milliseconds(60000), 0, 0), 1);
}

TEST_F(ScalePlannerTest, AGroupGoesWhenTheOthersSufficeForLong) {
  groups = 3;
  EXPECT_EQ(after(milliseconds(10000), 0, 8), 3) << "not yet";
  EXPECT_EQ(after(milliseconds(100), 0, 8), 2);
}

TEST_F(ScalePlannerTest, AGroupThatIsNeededStays) {
  groups = 2;
  EXPECT_EQ(after(milliseconds(60000), 0, 5), 2) << "four places are not enough for five";
  EXPECT_EQ(after(milliseconds(9900), 0, 4), 2);
  EXPECT_EQ(after(milliseconds(100), 0, 5), 2);
  EXPECT_EQ(after(milliseconds(9900), 0, 4), 2) << "the time began anew";
}

TEST_F(ScalePlannerTest, ChangesComeOneByOne) {
  groups = 3;
  EXPECT_EQ(after(milliseconds(10100), 0, 0), 2);
  groups = 2;
  EXPECT_EQ(after(milliseconds(10000), 0, 0), 2);
  EXPECT_EQ(after(milliseconds(100), 0, 0), 1);
}

TEST_F(ScalePlannerTest, AModelWithoutGroupsStaysWithout) {
  groups = 0;
  EXPECT_EQ(planner.plan({0, 0, 0, 5, 0}, {0, 3, milliseconds(0), milliseconds(0)}, now), 0);
}

TEST_F(ScalePlannerTest, NeverTakesTheLastGroup) {
  EXPECT_EQ(planner.plan({1, 0, 4, 0, 0}, {0, 3, milliseconds(0), milliseconds(0)}, now), 1);
}

}  // namespace
}  // namespace penstock::frontend
