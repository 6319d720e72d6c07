#include "frontend/waiting_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

namespace penstock::frontend {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Line = WaitingLine<std::string>;

// All that wait, in the order in which they would go.
std::vector<std::string> drained(Line& line) {
  std::vector<std::string> order;
  while (auto job = line.next()) order.push_back(*job);
  return order;
}

TEST(WaitingLine, ClientsTakeTurnsAndKeepTheirOwnOrder) {
  Line line(10);
  for (const char* job : {"a1", "a2", "a3"}) EXPECT_TRUE(line.join(job, Priority::kNormal, "a").accepted);
  for (const char* job : {"b1", "b2"}) EXPECT_TRUE(line.join(job, Priority::kNormal, "b").accepted);
  EXPECT_TRUE(line.join("c1", Priority::kNormal, "c").accepted);
  EXPECT_THAT(drained(line), ElementsAre("a1", "b1", "c1", "a2", "b2", "a3"));
}

TEST(WaitingLine, HigherPrioritiesGoFirst) {
  Line line(10);
  EXPECT_TRUE(line.join("low", Priority::kLow, "a").accepted);
  EXPECT_TRUE(line.join("normal", Priority::kNormal, "a").accepted);
  EXPECT_TRUE(line.join("high", Priority::kHigh, "b").accepted);
  EXPECT_THAT(drained(line), ElementsAre("high", "normal", "low"));
}

TEST(WaitingLine, AClientThatComesLateDoesNotWaitForAllOfAnothersJobs) {
  Line line(100);
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(line.join("a" + std::to_string(i), Priority::kNormal, "a").accepted);
  EXPECT_EQ(line.next(), "a0");
  EXPECT_TRUE(line.join("b", Priority::kNormal, "b").accepted);
  EXPECT_EQ(line.next(), "a1");
  EXPECT_EQ(line.next(), "b");
}

TEST(WaitingLine, AFullLineMakesRoomForAClientThatHasLess) {
  Line line(3);
  for (const char* job : {"a1", "a2", "a3"}) EXPECT_TRUE(line.join(job, Priority::kNormal, "a").accepted);
  EXPECT_FALSE(line.join("a4", Priority::kNormal, "a").accepted) << "a has the whole line already";
  const auto b1 = line.join("b1", Priority::kNormal, "b");
  EXPECT_TRUE(b1.accepted);
  EXPECT_EQ(b1.displaced, "a3") << "the newest one of who has most";
  const auto b2 = line.join("b2", Priority::kNormal, "b");
  EXPECT_FALSE(b2.accepted) << "one and two is as even as it gets";
  EXPECT_FALSE(b2.displaced);
  EXPECT_THAT(drained(line), ElementsAre("a1", "b1", "a2"));
}

TEST(WaitingLine, AFullLineMakesRoomForAHigherPriority) {
  Line line(2);
  EXPECT_TRUE(line.join("low", Priority::kLow, "a").accepted);
  EXPECT_TRUE(line.join("normal", Priority::kNormal, "b").accepted);
  EXPECT_EQ(line.join("high", Priority::kHigh, "b").displaced, "low");
  EXPECT_EQ(line.join("high 2", Priority::kHigh, "b").displaced, "normal");
  EXPECT_FALSE(line.join("normal", Priority::kNormal, "c").accepted) << "a lower one displaces nobody";
  EXPECT_FALSE(line.join("high 3", Priority::kHigh, "b").accepted);
}

TEST(WaitingLine, WhoMayNotStartYetIsPassedOver) {
  Line line(10);
  for (const char* job : {"a1", "a2"}) EXPECT_TRUE(line.join(job, Priority::kNormal, "a").accepted);
  EXPECT_TRUE(line.join("b1", Priority::kNormal, "b").accepted);
  const auto other_than_a1 = [](const std::string& job) { return job != "a1"; };
  EXPECT_EQ(line.next(other_than_a1), "a2");
  EXPECT_EQ(line.next(other_than_a1), "b1");
  EXPECT_EQ(line.next(other_than_a1), std::nullopt);
  EXPECT_EQ(line.next(), "a1");
}

TEST(WaitingLine, WhoLeavesIsForgotten) {
  Line line(10);
  for (const char* job : {"a1", "a2"}) EXPECT_TRUE(line.join(job, Priority::kNormal, "a").accepted);
  EXPECT_TRUE(line.join("b1", Priority::kNormal, "b").accepted);
  line.leave("a1", Priority::kNormal, "a");
  line.leave("b1", Priority::kNormal, "b");
  EXPECT_EQ(line.size(), 1u);
  EXPECT_THAT(line.all(), ElementsAre("a2"));
  EXPECT_THROW(line.leave("b1", Priority::kNormal, "b"), Bug);
  EXPECT_THAT(drained(line), ElementsAre("a2"));
  EXPECT_THAT(line.all(), IsEmpty());
}

TEST(WaitingLine, KeepsCountThroughAnyOrderOfCallsAndIsFair) {
  std::mt19937 random(3);
  Line line(20);
  std::map<std::string, std::pair<Priority, std::string>> waiting;
  for (int round = 0; round < 20000; ++round) {
    const auto priority = static_cast<Priority>(random() % kNumPriorities);
    const std::string client = std::to_string(random() % 4), job = std::to_string(round);
    if (random() % 3 != 0) {
      const auto joined = line.join(job, priority, client);
      ASSERT_TRUE(joined.accepted || line.size() == 20) << "refused though there was room";
      if (joined.displaced) {
        ASSERT_EQ(waiting.erase(*joined.displaced), 1u);
      }
      if (joined.accepted) waiting[job] = {priority, client};
    } else if (random() % 4 == 0 && !waiting.empty()) {
      const auto [name, where] = *waiting.begin();
      line.leave(name, where.first, where.second);
      waiting.erase(name);
    } else if (const auto next = line.next()) {
      for (const auto& [name, where] : waiting) ASSERT_LE(where.first, waiting.at(*next).first) << "a higher one waits";
      waiting.erase(*next);
    }
    ASSERT_EQ(line.size(), waiting.size());
    ASSERT_LE(line.size(), 20u);
  }
}

TEST(Priority, HasThreeNames) {
  EXPECT_EQ(parse_priority("low").value(), Priority::kLow);
  EXPECT_EQ(parse_priority("normal").value(), Priority::kNormal);
  EXPECT_EQ(parse_priority("high").value(), Priority::kHigh);
  EXPECT_EQ(parse_priority("urgent").error().message(), "x-priority: expected low, normal or high, found 'urgent'");
  EXPECT_FALSE(parse_priority(""));
}

}  // namespace
}  // namespace penstock::frontend
