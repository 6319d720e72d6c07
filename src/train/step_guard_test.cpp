#include "train/step_guard.h"

#include <gtest/gtest.h>

#include <cmath>

namespace penstock::train {
namespace {

using Verdict = StepGuard::Verdict;

config::BadStepConfig skipping(double spike = 0) { return {config::BadStepAction::kSkip, spike, 2}; }

TEST(StepGuard, StopsAtWhatIsNotFiniteUnlessToldToSkip) {
  StepGuard stopping{config::BadStepConfig{}};
  EXPECT_EQ(stopping.judge(1, true).verdict, Verdict::kTake);
  EXPECT_EQ(stopping.judge(NAN, false).verdict, Verdict::kStop);

  StepGuard guard(skipping());
  EXPECT_EQ(guard.judge(NAN, false).verdict, Verdict::kSkip);
  EXPECT_EQ(guard.judge(INFINITY, false).verdict, Verdict::kSkip);
  const auto third = guard.judge(NAN, false);
  EXPECT_EQ(third.verdict, Verdict::kStop);
  EXPECT_NE(third.reason.find("2 steps before it were skipped"), std::string::npos) << third.reason;
  EXPECT_EQ(guard.skipped(), 2);
}

TEST(StepGuard, AGoodStepEndsTheRow) {
  StepGuard guard(skipping());
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(guard.judge(NAN, false).verdict, Verdict::kSkip);
    EXPECT_EQ(guard.judge(NAN, false).verdict, Verdict::kSkip);
    EXPECT_EQ(guard.judge(1, true).verdict, Verdict::kTake);
  }
  EXPECT_EQ(guard.skipped(), 20);
}

TEST(StepGuard, KnowsASpikeWhenItsWindowIsFull) {
  StepGuard guard(skipping(5));
  EXPECT_EQ(guard.judge(1000, true).verdict, Verdict::kTake) << "nothing to compare with";
  for (size_t i = 0; i < StepGuard::kWindow; ++i) EXPECT_EQ(guard.judge(i % 2 ? 2.1 : 1.9, true).verdict, Verdict::kTake);  // deviation 0.1
  EXPECT_EQ(guard.judge(2.45, true).verdict, Verdict::kTake);
  const auto spike = guard.judge(2.9, true);
  EXPECT_EQ(spike.verdict, Verdict::kSkip);
  EXPECT_NE(spike.reason.find("a loss of 2.9000"), std::string::npos) << spike.reason;
  EXPECT_EQ(guard.judge(0.1, true).verdict, Verdict::kTake) << "a fall is no spike";
}

TEST(StepGuard, DecidesTheSameAfterARestart) {
  StepGuard guard(skipping(4)), resumed(skipping(4));
  for (int i = 0; i < 200; ++i) (void)guard.judge(2 + 0.01 * (i % 7), true);
  (void)guard.judge(9, true);
  resumed.restore(guard.state());
  EXPECT_EQ(resumed.skipped(), 1);
  for (const double loss : {2.05, 2.1, 9.0, 9.0, 2.2, 8.0}) EXPECT_EQ(guard.judge(loss, true).verdict, resumed.judge(loss, true).verdict) << loss;
}

}  // namespace
}  // namespace penstock::train
