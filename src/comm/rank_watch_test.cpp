#include "comm/rank_watch.h"

#include <gtest/gtest.h>

namespace penstock::comm {
namespace {

constexpr milliseconds kStep{250};

RankWatch watch_of_three() {
  RankWatch watch(3, seconds(5), seconds(60));
  watch.set_identity(2, {.host = "node1", .pid_space = "", .pid = 4711, .start_ticks = 0});
  return watch;
}

Heartbeat beat(uint64_t count, RankState state = RankState::kAlive, const std::string& text = "") {
  return {.count = count, .state = state, .text = text};
}

TEST(RankWatch, ARankIsDeadWhenItsHeartbeatHasNotMovedForTheLimit) {
  RankWatch watch = watch_of_three();
  for (int step = 0; step <= 20; ++step) {
    EXPECT_FALSE(watch.verdict()) << "after " << step << " steps";
    watch.observe(1, beat(static_cast<uint64_t>(step)), kStep);
    watch.observe(2, beat(7), kStep);
  }
  EXPECT_EQ(watch.verdict(), "rank 2 (pid 4711 on node1) has stopped answering for 5.0 s");
}

TEST(RankWatch, ARankThatHasNotStartedGetsMoreTime) {
  RankWatch watch = watch_of_three();
  watch.observe(1, std::nullopt, seconds(59));
  EXPECT_FALSE(watch.verdict());
  watch.observe(1, std::nullopt, seconds(1));
  EXPECT_EQ(watch.verdict(), "rank 1 has not shown its first heartbeat within 60.0 s");
}

TEST(RankWatch, TheFirstFailureStaysTheVerdict) {
  RankWatch watch = watch_of_three();
  watch.observe(1, beat(1, RankState::kFailed, "disk full"), kStep);
  watch.observe_end(2);
  EXPECT_EQ(watch.verdict(), "rank 1 failed: disk full");
}

TEST(RankWatch, ARankThatFinishedIsNeitherSilentNorDead) {
  RankWatch watch = watch_of_three();
  watch.observe(1, beat(1, RankState::kDone), kStep);
  watch.observe(1, beat(1, RankState::kDone), seconds(100));
  watch.observe_end(1);
  EXPECT_FALSE(watch.verdict());
  EXPECT_FALSE(watch.all_left());
  watch.observe(2, beat(1, RankState::kDone), kStep);
  EXPECT_TRUE(watch.all_left());
}

TEST(RankWatch, AllAreToldWhenEveryLivingRankHasReadTheVerdict) {
  RankWatch watch = watch_of_three();
  watch.observe_end(2);
  EXPECT_EQ(watch.verdict(), "rank 2 (pid 4711 on node1) has ended without a word");
  watch.observe(1, beat(1), kStep);
  EXPECT_FALSE(watch.all_told());
  watch.observe(1, beat(2, RankState::kTold), kStep);
  EXPECT_TRUE(watch.all_told());
}

TEST(Heartbeat, ReadsBackWhatItWrites) {
  const Heartbeat written = beat(42, RankState::kFailed, "line 1\nline 2 done");
  const auto read = Heartbeat::from_text(written.to_text());
  ASSERT_TRUE(read);
  EXPECT_EQ(read->count, 42U);
  EXPECT_EQ(read->state, RankState::kFailed);
  EXPECT_EQ(read->text, written.text);
  for (const char* wrong : {"", "x", "1", "1 gone ", "-1 alive "}) EXPECT_FALSE(Heartbeat::from_text(wrong)) << wrong;
}

}  // namespace
}  // namespace penstock::comm
