#include "plan/schedule_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "plan/simulation.h"

namespace penstock::plan {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// A plan from one line per rank, actions separated by blanks.
Schedule plan_of(int num_microbatches, const std::vector<std::string>& lines) {
  const auto num_ranks = static_cast<int>(lines.size());
  Schedule plan{"by hand", num_ranks, num_ranks, num_microbatches, {}};
  for (const std::string& line : lines) {
    auto& list = plan.ranks.emplace_back();
    std::istringstream words(line);
    for (std::string word; words >> word;) list.push_back(parse_action(word).value());
  }
  return plan;
}

// Calls fn(schedule) for every schedule of every small size.
template <typename F>
void for_all_small(F fn) {
  for (const std::string& name : schedule_names()) {
    for (int ranks = 1; ranks <= 6; ++ranks) {
      for (int microbatches = 1; microbatches <= 12; ++microbatches) {
        SCOPED_TRACE(fmt::format("{}, {} ranks, {} micro-batches", name, ranks, microbatches));
        fn(schedule_by_name(name, ranks, microbatches).value());
      }
    }
  }
}

TEST(ScheduleCheck, EveryScheduleIsCompleteWithAndWithoutCommunication) {
  for_all_small([](const Schedule& schedule) {
    EXPECT_EQ(check_complete(schedule), std::nullopt);
    EXPECT_EQ(check_complete(with_communication(schedule)), std::nullopt);
  });
}

TEST(ScheduleCheck, NoLoweredScheduleGetsStuckEvenIfEverySendWaitsForItsReceive) {
  for_all_small([](const Schedule& schedule) {
    const Schedule lowered = with_communication(schedule);
    for (int capacity = 0; capacity <= 2; ++capacity) EXPECT_EQ(find_deadlock(lowered, capacity), std::nullopt);
  });
}

TEST(ScheduleCheck, LoweringKeepsTheOrderOfTheComputeActions) {
  for_all_small([](const Schedule& schedule) {
    Schedule lowered = with_communication(schedule);
    for (auto& list : lowered.ranks) std::erase_if(list, [](const Action& action) { return !is_compute(action.kind); });
    EXPECT_EQ(lowered, schedule);
  });
}

TEST(FindDeadlock, NamesWhoWaitsForWhatWhenTwoRanksReceiveFirst) {
  const auto stuck = find_deadlock(plan_of(1, {"0RECV_B0 0F0 0SEND_F0", "1RECV_F0 1F0 1B0 1SEND_B0"}), 4);
  ASSERT_TRUE(stuck);
  EXPECT_THAT(*stuck, AllOf(HasSubstr("rank 0 stands at 0RECV_B0 (action 1 of 3) and waits for rank 1 to reach 1SEND_B0"),
                            HasSubstr("rank 1 stands at 1RECV_F0 (action 1 of 4) and waits for rank 0 to reach 0SEND_F0")));
}

TEST(FindDeadlock, SeesThatTwoSendsThatMeetNeedABufferedLink) {
  const Schedule plan = plan_of(2, {"0F1 0SEND_F1 0RECV_B0", "1SEND_B0 1RECV_F1"});
  const auto stuck = find_deadlock(plan, 0);
  ASSERT_TRUE(stuck);
  EXPECT_THAT(*stuck, HasSubstr("rank 0 stands at 0SEND_F1 (action 2 of 3) and waits for rank 1 to reach 1RECV_F1"));
  EXPECT_EQ(find_deadlock(plan, 1), std::nullopt);
}

TEST(FindDeadlock, SeesAFullLinkAWrongOrderAndAPartnerThatHasEnded) {
  EXPECT_THAT(find_deadlock(plan_of(2, {"0SEND_F0 0SEND_F1 0RECV_B0", "1RECV_F1"}), 1).value(),
              AllOf(HasSubstr("rank 0 stands at 0SEND_F1 (action 2 of 3) and waits for room in its full link to rank 1"),
                    HasSubstr("rank 1 stands at 1RECV_F1 (action 1 of 1) and waits for 0SEND_F1, but the next message from rank 0 is 0SEND_F0")));
  EXPECT_THAT(find_deadlock(plan_of(1, {"0F0", "1RECV_F0"}), 1).value(), HasSubstr("waits for 0SEND_F0, but rank 0 has ended"));
}

TEST(CheckComplete, FindsEachKindOfGap) {
  const auto problem = [](const std::vector<std::string>& lines) { return check_complete(plan_of(1, lines)).value_or("complete"); };
  EXPECT_EQ(problem({"0F0 0B0"}), "complete");
  EXPECT_EQ(problem({"0F0 0I0 0W0"}), "complete");
  EXPECT_EQ(problem({"0F0", "1F0 1B0"}), "rank 0 lacks 0B0");
  EXPECT_EQ(problem({"0B0"}), "rank 0 lacks 0F0");
  EXPECT_EQ(problem({"0B0 0F0"}), "rank 0 has 0B0 before 0F0");
  EXPECT_EQ(problem({"0F0 0F0 0B0"}), "rank 0 has 0F0 twice");
  EXPECT_EQ(problem({"0F0 0I0"}), "rank 0 lacks 0W0");
  EXPECT_EQ(problem({"0F0 0W0"}), "rank 0 lacks 0I0");
  EXPECT_EQ(problem({"0F0 0W0 0I0"}), "rank 0 has 0W0 before 0I0");
  EXPECT_EQ(problem({"0F0 0B0 0W0"}), "0B0 is there as a whole and in parts");
  EXPECT_EQ(problem({"0F0 0B1"}), "rank 0 has 0B1, but there are 1 stages and 1 micro-batches");
  EXPECT_EQ(problem({"1F0", "0F0"}), "rank 0 has 1F0, but stage 1 is on rank 1");
}

TEST(CheckComplete, FindsEachKindOfLostMessage) {
  const auto problem = [](const std::vector<std::string>& lines) { return check_complete(plan_of(1, lines)).value_or("complete"); };
  EXPECT_EQ(problem({"0F0 0SEND_F0 0RECV_B0 0B0", "1RECV_F0 1F0 1B0 1SEND_B0"}), "complete");
  EXPECT_EQ(problem({"0F0 0RECV_B0 0B0", "1RECV_F0 1F0 1B0 1SEND_B0"}), "rank 0 lacks 0SEND_F0");
  EXPECT_EQ(problem({"0F0 0SEND_F0 0RECV_B0 0B0", "1F0 1B0 1SEND_B0"}), "rank 1 lacks 1RECV_F0");
  EXPECT_EQ(problem({"0F0 0SEND_F0 0B0", "1RECV_F0 1F0 1B0 1SEND_B0"}), "rank 0 lacks 0RECV_B0");
  EXPECT_EQ(problem({"0SEND_F0 0F0 0RECV_B0 0B0", "1RECV_F0 1F0 1B0 1SEND_B0"}), "rank 0 has 0SEND_F0 before 0F0");
  EXPECT_EQ(problem({"0F0 0SEND_F0 0RECV_B0 0B0", "1F0 1RECV_F0 1B0 1SEND_B0"}), "rank 1 has 1F0 before 1RECV_F0");
  EXPECT_EQ(problem({"0F0 0SEND_F0 0B0 0RECV_B0", "1RECV_F0 1F0 1B0 1SEND_B0"}), "rank 0 has 0B0 before 0RECV_B0");
}

TEST(Simulate, BubbleOfGpipeAnd1f1bIsTheFormula) {
  for (int ranks = 1; ranks <= 6; ++ranks) {
    const std::vector<StageCosts> costs(static_cast<size_t>(ranks));
    for (int microbatches = 1; microbatches <= 12; ++microbatches) {
      SCOPED_TRACE(fmt::format("{} ranks, {} micro-batches", ranks, microbatches));
      const double expected = bubble_formula(ranks, microbatches);
      EXPECT_NEAR(simulate(gpipe(ranks, microbatches), costs, 0).bubble_share, expected, 1e-12);
      EXPECT_NEAR(simulate(one_f_one_b(ranks, microbatches), costs, 0).bubble_share, expected, 1e-12);
    }
  }
}

TEST(Simulate, ShowsThat1f1bKeepsFewActivationsAndGpipeKeepsAll) {
  for (int ranks = 1; ranks <= 6; ++ranks) {
    const std::vector<StageCosts> costs(static_cast<size_t>(ranks));
    for (int microbatches = 1; microbatches <= 12; ++microbatches) {
      const Simulation few = simulate(one_f_one_b(ranks, microbatches), costs, 0);
      const Simulation all = simulate(gpipe(ranks, microbatches), costs, 0);
      for (int rank = 0; rank < ranks; ++rank) {
        SCOPED_TRACE(fmt::format("rank {} of {}, {} micro-batches", rank, ranks, microbatches));
        EXPECT_EQ(few.ranks[static_cast<size_t>(rank)].peak_live_activations, std::min(microbatches, ranks - rank));
        EXPECT_EQ(all.ranks[static_cast<size_t>(rank)].peak_live_activations, microbatches);
      }
    }
  }
}

TEST(Simulate, GivesTheSameTimesWithAndWithoutCommunication) {
  for_all_small([](const Schedule& schedule) {
    std::vector<StageCosts> costs(static_cast<size_t>(schedule.num_stages));
    costs.front().forward = 1.5;
    costs.back().backward = 3.25;
    const Simulation plain = simulate(schedule, costs, 0.25);
    const Simulation lowered = simulate(with_communication(schedule), costs, 0.25);
    EXPECT_DOUBLE_EQ(plain.makespan, lowered.makespan);
    EXPECT_DOUBLE_EQ(plain.bubble_share, lowered.bubble_share);
  });
}

TEST(Simulate, StartsEachActionWhenItsInputHasArrived) {
  const Simulation simulation = simulate(with_communication(gpipe(2, 1)), std::vector<StageCosts>(2), 0.5);
  std::string text;
  for (const RankTimeline& rank : simulation.ranks) {
    for (const TimedAction& timed : rank.actions) text += fmt::format("{} {}-{}\n", to_string(timed.action), timed.start, timed.end);
  }
  EXPECT_EQ(text,
            "0F0 0-1\n0SEND_F0 1-1\n0RECV_B0 1-5\n0B0 5-7\n"
            "1RECV_F0 0-1.5\n1F0 1.5-2.5\n1B0 2.5-4.5\n1SEND_B0 4.5-4.5\n");
  EXPECT_DOUBLE_EQ(simulation.makespan, 7);
  EXPECT_DOUBLE_EQ(simulation.ranks[0].busy, 3);
  EXPECT_DOUBLE_EQ(simulation.ranks[0].idle, 4);
}

// With hop latency c the steady state of 1F1B has period forward + backward + 2c(p-1)/p, as only p micro-batches circulate:
// 4 ranks, 64 micro-batches, c = a quarter of a forward gives 15.0 % idle, where GPipe has 5.2 %.
TEST(Simulate, ShowsThat1f1bPaysForSlowLinks) {
  const std::vector<StageCosts> costs(4);
  EXPECT_NEAR(simulate(one_f_one_b(4, 64), costs, 0.25).bubble_share, 0.150, 0.001);
  EXPECT_NEAR(simulate(gpipe(4, 64), costs, 0.25).bubble_share, 0.052, 0.001);
}

TEST(Simulate, RefusesAPlanWhoseInputIsNeverMade) {
  EXPECT_THROW((void)simulate(plan_of(1, {"0B0 0F0", "1F0 1B0"}), std::vector<StageCosts>(2), 0), Error);
}

}  // namespace
}  // namespace penstock::plan
