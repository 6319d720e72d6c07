#include "plan/schedule_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "plan/choose_schedule.h"
#include "plan/lowering.h"
#include "plan/replay.h"
#include "plan/simulation.h"

namespace penstock::plan {
namespace {

using testing::AllOf;
using testing::HasSubstr;

// A plan from one line per rank, actions separated by blanks.
Schedule plan_of(int num_microbatches, const std::vector<std::string>& lines) {
  const auto num_ranks = static_cast<int>(lines.size());
  Schedule plan{"by hand", num_ranks, num_ranks, num_microbatches, loop_placement(num_ranks, 1), {}};
  for (const std::string& line : lines) {
    auto& list = plan.ranks.emplace_back();
    std::istringstream words(line);
    for (std::string word; words >> word;) list.push_back(parse_action(word).value());
  }
  return plan;
}

Schedule make(const std::string& name, int ranks, int microbatches, int chunks = 0) { return make_schedule({name, ranks, microbatches, chunks}).value(); }

// Calls fn(schedule) for every schedule of every shape that it can have, up to these counts.
template <typename F>
void for_all(int max_ranks, int max_microbatches, int max_chunks, F fn) {
  for (const KnownSchedule& known : known_schedules()) {
    for (int ranks = 1; ranks <= max_ranks; ++ranks) {
      for (int microbatches = 1; microbatches <= max_microbatches; ++microbatches) {
        for (int chunks = 1; chunks <= max_chunks; ++chunks) {
          const auto schedule = make_schedule({known.name, ranks, microbatches, chunks});
          if (!schedule.ok()) continue;
          SCOPED_TRACE(fmt::format("{}, {} ranks, {} micro-batches, {} chunks", known.name, ranks, microbatches, chunks));
          fn(schedule.value());
        }
      }
    }
  }
}

template <typename F>
void for_all_small(F fn) {
  for_all(5, 10, 3, fn);
}

// The most micro-batches that a rank may keep, in stages of its own.
int memory_bound(const Schedule& schedule, int rank) {
  const int p = schedule.num_ranks, m = schedule.num_microbatches, v = schedule.num_stages / p;
  const int rounds = std::max(1, m / p), group = m / rounds;
  if (schedule.name == "1f1b") return std::min(m, p - rank);
  if (schedule.name == "eager-1f1b") return std::min(m, 2 * (p - 1 - rank) + 1);
  if (schedule.name == "interleaved-1f1b") return std::min(m * v, (v - 1) * group + 2 * (p - 1 - rank) + 1);
  if (schedule.name == "zb-h1") return std::min(m * v, (v - 1) * group + p - rank);
  if (schedule.name == "zb-v") return 2 * p;
  if (schedule.name == "dualpipev") return 2 * p + 1;
  return m * v;
}

// Everything that is promised of every schedule, over all p <= 8, m <= 20, v <= 4.
TEST(ScheduleCheck, EveryScheduleIsCompleteFreeOfDeadlockAndWithinItsMemory) {
  int count = 0;
  for_all(8, 20, 4, [&](const Schedule& schedule) {
    ++count;
    ASSERT_EQ(check_complete(schedule), std::nullopt);
    const Schedule lowered = with_communication(schedule);
    ASSERT_EQ(check_complete(lowered), std::nullopt);
    ASSERT_EQ(find_deadlock(lowered, 0), std::nullopt);
    const Simulation simulation = simulate(schedule, std::vector<StageCosts>(static_cast<size_t>(schedule.num_stages)), 0);
    for (int rank = 0; rank < schedule.num_ranks; ++rank) {
      ASSERT_LE(simulation.ranks[static_cast<size_t>(rank)].peak_live_activations, memory_bound(schedule, rank)) << "rank " << rank;
    }
  });
  EXPECT_GT(count, 2500);
}

TEST(ScheduleCheck, NoLoweredScheduleGetsStuckOnLinksThatBuffer) {
  for_all_small([](const Schedule& schedule) {
    const Schedule lowered = with_communication(schedule);
    for (int capacity = 1; capacity <= 2; ++capacity) EXPECT_EQ(find_deadlock(lowered, capacity), std::nullopt);
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
  EXPECT_EQ(problem({"0F0 0B0 0SEND_B0"}), "rank 0 has 0SEND_B0, but stage 0 has no neighbour on another rank there");
  EXPECT_EQ(problem({"0F0 0B0 0SEND_F0"}), "rank 0 has 0SEND_F0, but stage 0 has no neighbour on another rank there");
  EXPECT_EQ(problem({"0F0 0SEND_F0 0RECV_B0", "1RECV_F0 1F0 1SEND_B0"}), "1SEND_B0 is there, but no gradient is ever made");
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

// Chunks are equal parts of a rank's work, so v of them cost as much as one stage.
std::vector<StageCosts> costs_of_chunks(const Schedule& schedule) {
  const double part = static_cast<double>(schedule.num_ranks) / schedule.num_stages;
  return std::vector<StageCosts>(static_cast<size_t>(schedule.num_stages), {part, 2 * part, part, part});
}

TEST(Simulate, BubbleIsTheFormulaWhereThereIsOne) {
  int compared = 0;
  for_all(6, 12, 3, [&](const Schedule& schedule) {
    const int rounds = std::max(1, schedule.num_microbatches / schedule.num_ranks);
    if (schedule.num_microbatches < schedule.num_ranks && schedule.num_stages > schedule.num_ranks) return;  // outside the formula
    if (schedule.num_microbatches < schedule.num_ranks && schedule.name == "zb-h1") return;
    if (schedule.num_microbatches / rounds != schedule.num_ranks && schedule.num_stages > schedule.num_ranks) return;
    const auto costs = costs_of_chunks(schedule);
    const auto expected = bubble_formula(schedule, costs.front());
    if (!expected) return;
    ++compared;
    EXPECT_NEAR(simulate(schedule, costs, 0).bubble_share, *expected, 1e-12);
  });
  EXPECT_GT(compared, 400);
}

// Rows as a run would have measured them.
std::vector<TimelineRow> rows_of(const Simulation& simulation) {
  std::vector<TimelineRow> rows;
  for (const RankTimeline& rank : simulation.ranks) {
    TimelineRow& row = rows.emplace_back();
    for (const TimedAction& t : rank.actions) {
      if (is_compute(t.action.kind)) row.bars.push_back({t.action.kind, t.action.stage, t.action.microbatch, t.start, t.end});
    }
  }
  return rows;
}

TEST(ExplainBubble, TellsOrderUnevenTimesAndMessagesApart) {
  const Schedule schedule = make("1f1b", 4, 8);
  const std::vector<StageCosts> even(4);
  std::vector<StageCosts> uneven = even;
  uneven[2].forward = 1.5;
  const double by_order = 3.0 / 11;
  const BubbleCauses plain = explain_bubble(rows_of(simulate(schedule, even, 0)));
  EXPECT_NEAR(plain.measured, by_order, 1e-12);
  EXPECT_NEAR(plain.schedule, by_order, 1e-12);
  EXPECT_NEAR(plain.uneven, 0, 1e-12);
  EXPECT_NEAR(plain.waiting, 0, 1e-12);

  const BubbleCauses slow_stage = explain_bubble(rows_of(simulate(schedule, uneven, 0)));
  EXPECT_NEAR(slow_stage.schedule, by_order, 1e-12);
  EXPECT_GT(slow_stage.uneven, 0.02);
  EXPECT_NEAR(slow_stage.waiting, 0, 1e-12);

  const Simulation late = simulate(schedule, even, 0.25);
  const BubbleCauses slow_link = explain_bubble(rows_of(late));
  EXPECT_NEAR(slow_link.uneven, 0, 1e-12);
  EXPECT_NEAR(slow_link.waiting, late.bubble_share - by_order, 1e-12);
}

// Known from running the reference systems' orders: 4 ranks, 8 micro-batches, forward = input gradient = weight gradient = 1.
TEST(Simulate, FindsTheKnownSpans) {
  const auto span = [](const std::string& name) {
    const Schedule schedule = make(name, 4, 8);
    return simulate(schedule, costs_of_chunks(schedule), 0).makespan;
  };
  EXPECT_DOUBLE_EQ(span("1f1b"), 33);
  EXPECT_DOUBLE_EQ(span("zb-h1"), 27);
  EXPECT_DOUBLE_EQ(span("zb-v"), 25.5);
}

// DeepSeek's table: (PP/2 - 1)(F&B + B - 3W) idle a rank, here with F&B = F + B, 8 stages on 4 ranks: 3 · (3 + 2 - 3).
TEST(Simulate, FindsTheKnownBubbleOfDualpipev) {
  const Schedule schedule = make("dualpipev", 4, 12);
  const Simulation simulation = simulate(schedule, std::vector<StageCosts>(8), 0);
  for (const RankTimeline& rank : simulation.ranks) EXPECT_DOUBLE_EQ(rank.idle, 6);
}

TEST(Simulate, CountsWhatWaitsForWeightGradients) {
  const Simulation zb = simulate(make("zb-h1", 4, 12), std::vector<StageCosts>(4), 0);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(zb.ranks[static_cast<size_t>(rank)].peak_live_activations, 4 - rank);
    EXPECT_EQ(zb.ranks[static_cast<size_t>(rank)].peak_kept_for_weights, 4);
  }
}

TEST(Simulate, ShowsThat1f1bKeepsFewActivationsAndGpipeKeepsAll) {
  for (int ranks = 1; ranks <= 6; ++ranks) {
    const std::vector<StageCosts> costs(static_cast<size_t>(ranks));
    for (int microbatches = 1; microbatches <= 12; ++microbatches) {
      const Simulation few = simulate(make("1f1b", ranks, microbatches), costs, 0);
      const Simulation all = simulate(make("gpipe", ranks, microbatches), costs, 0);
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
  const Simulation simulation = simulate(with_communication(make("gpipe", 2, 1)), std::vector<StageCosts>(2), 0.5);
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
  EXPECT_NEAR(simulate(make("1f1b", 4, 64), costs, 0.25).bubble_share, 0.150, 0.001);
  EXPECT_NEAR(simulate(make("gpipe", 4, 64), costs, 0.25).bubble_share, 0.052, 0.001);
  EXPECT_NEAR(simulate(make("eager-1f1b", 4, 64), costs, 0.25).bubble_share, 0.052, 0.001);
}

TEST(ChooseSchedule, TakesTheEagerFormWhereHopsCount) {
  const std::vector<StageCosts> costs(4);
  EXPECT_EQ(choose_1f1b(64, costs, 0), "1f1b");
  EXPECT_EQ(choose_1f1b(64, costs, 0.01), "1f1b");
  EXPECT_EQ(choose_1f1b(64, costs, 0.25), "eager-1f1b");
  EXPECT_EQ(choose_1f1b(64, std::vector<StageCosts>(1), 0.25), "1f1b");
}

TEST(Simulate, RefusesAPlanWhoseInputIsNeverMade) {
  EXPECT_THROW((void)simulate(plan_of(1, {"0B0 0F0", "1F0 1B0"}), std::vector<StageCosts>(2), 0), Error);
}

}  // namespace
}  // namespace penstock::plan
