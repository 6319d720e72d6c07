#include "frontend/sequence_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::frontend {
namespace {

using testing::HasSubstr;

const Clock::time_point kStart{};

Clock::time_point at(int ms) { return kStart + milliseconds(ms); }

TEST(SequenceTable, RunsOneRequestOfASequenceAtATime) {
  SequenceTable table({});
  EXPECT_FALSE(table.admit("a", at(0)));
  EXPECT_FALSE(table.admit("a", at(0)));
  EXPECT_FALSE(table.admit("b", at(0)));
  EXPECT_TRUE(table.may_start("a"));
  (void)table.started("a", 1);
  EXPECT_FALSE(table.may_start("a"));
  EXPECT_TRUE(table.may_start("b")) << "sequences do not wait for each other";
  table.finished("a", false, at(1));
  EXPECT_TRUE(table.may_start("a"));
}

TEST(SequenceTable, SaysWhichRequestBeginsASequence) {
  SequenceTable table({.max_sequences = 0, .max_waiting = 0, .max_idle = milliseconds(100), .max_life = {}});
  EXPECT_FALSE(table.admit("a", at(0)));
  table.dropped("a", at(0));
  EXPECT_FALSE(table.admit("a", at(99)));
  EXPECT_TRUE(table.started("a", 0)) << "the one before never ran";
  table.finished("a", false, at(99));
  EXPECT_FALSE(table.admit("a", at(100)));
  EXPECT_FALSE(table.started("a", 0));
  table.finished("a", false, at(100));
  EXPECT_FALSE(table.admit("a", at(200)));
  EXPECT_TRUE(table.started("a", 0)) << "the first one was forgotten";
}

TEST(SequenceTable, StaysWithTheGroupOfItsFirstRequestUntilThatIsLost) {
  SequenceTable table({.max_sequences = 0, .max_waiting = 0, .max_idle = milliseconds(100), .max_life = {}});
  EXPECT_FALSE(table.admit("a", at(0)));
  EXPECT_EQ(table.group("a"), std::nullopt);
  (void)table.started("a", 3);
  table.finished("a", false, at(1));
  EXPECT_FALSE(table.admit("a", at(2)));
  EXPECT_EQ(table.group("a"), 3);
  table.group_lost(2);
  EXPECT_EQ(table.group("a"), 3);
  table.group_lost(3);
  EXPECT_EQ(table.group("a"), std::nullopt);
}

TEST(SequenceTable, LeavesNothingBehindWithoutAnIdleTime) {
  SequenceTable table({});
  EXPECT_FALSE(table.admit("a", at(0)));
  EXPECT_FALSE(table.admit("b", at(0)));
  (void)table.started("a", 0);
  table.finished("a", false, at(1));
  table.dropped("b", at(1));
  EXPECT_EQ(table.size(), 0u);
}

TEST(SequenceTable, RefusesMoreSequencesThanItMayHaveUntilOneIsIdleForTooLong) {
  SequenceTable table({.max_sequences = 2, .max_waiting = 0, .max_idle = milliseconds(100), .max_life = {}});
  for (const char* id : {"a", "b"}) {
    EXPECT_FALSE(table.admit(id, at(0)));
    (void)table.started(id, 0);
    table.finished(id, false, at(10));
  }
  const auto refused = table.admit("c", at(20));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code(), Code::kResourceExhausted);
  EXPECT_THAT(refused->message(), HasSubstr("maxNumSequence"));
  EXPECT_FALSE(table.admit("a", at(109))) << "those that are open go on";
  EXPECT_FALSE(table.admit("c", at(110))) << "b has been idle for 100 ms";
  EXPECT_TRUE(table.admit("b", at(110)));
}

TEST(SequenceTable, GivesItsPlaceFreeAtOnceWhenTheClientSaysThatItEnds) {
  SequenceTable table({.max_sequences = 1, .max_waiting = 0, .max_idle = seconds(100), .max_life = {}});
  EXPECT_FALSE(table.admit("a", at(0)));
  (void)table.started("a", 0);
  table.finished("a", true, at(1));
  EXPECT_FALSE(table.admit("b", at(1)));
}

TEST(SequenceTable, KeepsAnEndedSequenceWhileRequestsOfItWait) {
  SequenceTable table({.max_sequences = 1, .max_waiting = 0, .max_idle = seconds(100), .max_life = {}});
  EXPECT_FALSE(table.admit("a", at(0)));
  EXPECT_FALSE(table.admit("a", at(0)));
  (void)table.started("a", 0);
  table.finished("a", true, at(1));
  EXPECT_TRUE(table.admit("b", at(1)));
  (void)table.started("a", 0);
  table.finished("a", false, at(2));
  EXPECT_FALSE(table.admit("b", at(2)));
}

TEST(SequenceTable, BoundsTheRequestsOfOneSequenceThatWait) {
  SequenceTable table({.max_sequences = 0, .max_waiting = 1, .max_idle = {}, .max_life = {}});
  EXPECT_FALSE(table.admit("a", at(0)));
  (void)table.started("a", 0);
  EXPECT_FALSE(table.admit("a", at(0)));
  const auto refused = table.admit("a", at(0));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code(), Code::kResourceExhausted);
  EXPECT_THAT(refused->message(), HasSubstr("maxSequenceJobQueueSize"));
  EXPECT_FALSE(table.admit("b", at(0)));
}

TEST(SequenceTable, TakesNothingMoreForASequenceThatIsTooOld) {
  SequenceTable table({.max_sequences = 0, .max_waiting = 0, .max_idle = seconds(100), .max_life = milliseconds(50)});
  EXPECT_FALSE(table.admit("a", at(0)));
  (void)table.started("a", 0);
  EXPECT_FALSE(table.admit("a", at(49)));
  const auto refused = table.admit("a", at(50));
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code(), Code::kFailedPrecondition);
  table.finished("a", false, at(60));
  (void)table.started("a", 0);
  table.finished("a", false, at(61));
  EXPECT_FALSE(table.admit("a", at(62))) << "a new sequence of the same name";
  EXPECT_EQ(table.group("a"), std::nullopt);
}

}  // namespace
}  // namespace penstock::frontend
