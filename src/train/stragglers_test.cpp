#include "train/stragglers.h"

#include <gtest/gtest.h>

namespace penstock::train {
namespace {

// 3 replicas x 2 stages: the ranks of stage 0 are 0, 1, 2, those of stage 1 are 3, 4, 5. Stage 1 takes twice as long.
const plan::Topology kMesh{2, 3, 1};
const std::vector<double> kEven = {1, 1, 1, 2, 2, 2};

void run(StragglerWatch& watch, const std::vector<double>& seconds, int steps) {
  for (int i = 0; i < steps; ++i) (void)watch.add(seconds);
}

TEST(Stragglers, AHeavierStageIsNone) {
  StragglerWatch watch(kMesh);
  run(watch, kEven, StragglerWatch::kWindow);
  EXPECT_TRUE(watch.now().empty());
  EXPECT_TRUE(watch.persistent().empty());
}

TEST(Stragglers, ARankThatIsSlowerThanItsStagesOthersIsNamedAfterAWindow) {
  StragglerWatch watch(kMesh);
  const std::vector<double> slow = {1, 1, 1, 2, 5, 2};
  for (int step = 1; step < StragglerWatch::kWindow; ++step) EXPECT_FALSE(watch.add(slow)) << step;
  EXPECT_TRUE(watch.add(slow));
  EXPECT_EQ(watch.now(), (std::vector<Straggler>{{4, 2.5}}));
  EXPECT_EQ(watch.persistent(), watch.now());
}

TEST(Stragglers, OneBadStepIsNoHabit) {
  StragglerWatch watch(kMesh);
  run(watch, {100, 1, 1, 2, 2, 2}, 1);
  run(watch, kEven, StragglerWatch::kWindow - 1);
  EXPECT_TRUE(watch.now().empty());
}

TEST(Stragglers, WhoRecoversIsForgotten) {
  StragglerWatch watch(kMesh);
  run(watch, {2, 1, 1, 2, 2, 2}, StragglerWatch::kWindow);
  EXPECT_EQ(watch.now().size(), 1u);
  run(watch, kEven, 2 * StragglerWatch::kWindow);
  EXPECT_TRUE(watch.now().empty());
  EXPECT_TRUE(watch.persistent().empty()) << "one window of three";
}

TEST(Stragglers, TheSlowestComesFirst) {
  StragglerWatch watch({1, 4, 1});
  run(watch, {1, 2, 1, 4}, StragglerWatch::kWindow);
  EXPECT_EQ(watch.now(), (std::vector<Straggler>{{3, 4.0}, {1, 2.0}}));
}

TEST(Stragglers, WithoutReplicasThereIsNobodyToCompareWith) {
  StragglerWatch watch({3, 1, 1});
  run(watch, {1, 9, 1}, StragglerWatch::kWindow);
  EXPECT_TRUE(watch.now().empty());
}

}  // namespace
}  // namespace penstock::train
