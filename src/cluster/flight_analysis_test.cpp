#include "cluster/flight_analysis.h"

#include <gtest/gtest.h>

namespace penstock::cluster {
namespace {

using Kind = FlightEntry::Kind;
constexpr int64_t kNow = 1'000'000'000;  // microseconds

// A rank of four in these groups: pipe[0] = 0, 1; pipe[1] = 2, 3; data[0] = 0, 2; data[1] = 1, 3.
class DumpOf {
 public:
  explicit DumpOf(int rank, int64_t step = 41) {
    dump_.rank = rank;
    dump_.world_size = 4;
    dump_.unix_us = kNow;
    dump_.recorded.step = step;
    dump_.recorded.groups = {{"world", {0, 1, 2, 3}}, {fmt::format("pipe[{}]", rank / 2), rank < 2 ? std::vector{0, 1} : std::vector{2, 3}},
                             {fmt::format("data[{}]", rank % 2), rank % 2 == 0 ? std::vector{0, 2} : std::vector{1, 3}}};
  }
  // Times in seconds before the dump; waited < 0: nobody waits; finished < 0: not finished.
  DumpOf& add(FlightEntry entry, double posted, double waited, double finished) {
    const auto at = [](double before) { return before < 0 ? 0 : kNow - static_cast<int64_t>(before * 1e6); };
    entry.posted_us = at(posted);
    entry.waited_us = at(waited);
    entry.finished_us = at(finished);
    dump_.recorded.entries.push_back(entry);
    return *this;
  }
  DumpOf& forward(int stage, int microbatch, double posted, double finished) {
    return add({.kind = Kind::kAction, .name = "forward", .stage = stage, .microbatch = microbatch}, posted, -1, finished);
  }
  DumpOf& reduce(int64_t sequence, int bucket, double waited, double finished, int64_t bytes = 64) {
    return add({.kind = Kind::kCollective, .name = "all_reduce(sum)", .group = 2, .bucket = bucket, .sequence = sequence, .bytes = bytes}, 13, waited, finished);
  }
  DumpOf& wait_message(const char* name, int peer, double waited) {
    return add({.kind = Kind::kMessage, .name = name, .group = 1, .peer = peer, .tag = 7, .bytes = 4096}, waited + 1, waited, -1);
  }
  operator FlightDump() const { return dump_; }  // NOLINT

 private:
  FlightDump dump_;
};

TEST(FlightAnalysis, NamesTheRankThatComputesWhileItsPeersWait) {
  const std::vector<FlightDump> dumps = {DumpOf(0).reduce(5, 2, 12.3, -1), DumpOf(1).reduce(5, 2, 12.2, -1), DumpOf(2).reduce(4, 1, 13, 12.9).forward(0, 3, 12.4, -1),
                                         DumpOf(3).reduce(5, 2, 12.2, 11)};
  const FlightFindings found = analyse_flight(dumps);
  EXPECT_EQ(found.headline,
            "step 41: rank 0 waits in all_reduce(sum) #5 of data[0] (bucket 2); rank 2 is still in forward of micro-batch 3 on stage 0 since 12.4 s");
  EXPECT_EQ(found.culprits, std::vector<int>{2});
  ASSERT_EQ(found.ranks.size(), 4u);
  EXPECT_EQ(found.ranks[3], "rank 3 is between operations since 11.0 s: its last was all_reduce(sum) #5 of data[1] (bucket 2)");
}

TEST(FlightAnalysis, FollowsWaitingRanksToTheCause) {
  // 3 waits for a message of 2, which waits for a reduction with 0, which waits for a message of 1, which computes.
  const std::vector<FlightDump> dumps = {DumpOf(0).add({.kind = Kind::kAction, .name = "wait for gradient", .stage = 0, .microbatch = 1}, 9, -1, -1).wait_message("recv", 1, 8.9),
                                         DumpOf(1).forward(1, 1, 9.5, -1), DumpOf(2).reduce(5, -1, 8, -1), DumpOf(3).wait_message("recv", 0, 7)};
  const FlightFindings found = analyse_flight(dumps);
  EXPECT_EQ(found.culprits, std::vector<int>{1});
  EXPECT_EQ(found.headline,
            "step 41: rank 0 waits in recv from rank 1 (tag 7 of pipe[0], 4096 bytes) for the wait for gradient of micro-batch 1 on stage 0; rank 1 is still in "
            "forward of micro-batch 1 on stage 1 since 9.5 s");
}

TEST(FlightAnalysis, ARankWithoutADumpIsNamed) {
  const auto barrier = [](int rank) {
    return FlightDump(DumpOf(rank).add({.kind = Kind::kCollective, .name = "barrier", .group = 0, .sequence = 3}, 6, 6, -1));
  };
  const FlightFindings found = analyse_flight(std::vector<FlightDump>{barrier(0), barrier(2), barrier(3)});
  EXPECT_EQ(found.culprits, std::vector<int>{1});
  EXPECT_NE(found.headline.find("ranks 0, 2 and 3 wait in barrier #3 of world; rank 1 has left no dump: its process is stopped"), std::string::npos) << found.headline;
}

TEST(FlightAnalysis, ADumpOfAnEarlierAlarmCountsAsNone) {
  FlightDump old = DumpOf(1).forward(1, 0, 2, 1);
  old.unix_us -= 61'000'000;
  const FlightFindings found = analyse_flight(std::vector<FlightDump>{DumpOf(0).wait_message("recv", 1, 3), old, DumpOf(2).forward(0, 0, 2, 1), DumpOf(3).forward(1, 0, 2, 1)});
  EXPECT_NE(found.headline.find("rank 1 has left no dump"), std::string::npos) << found.headline;
}

TEST(FlightAnalysis, ACircleIsSaidToBeOne) {
  const FlightFindings found = analyse_flight(std::vector<FlightDump>{DumpOf(0).wait_message("recv", 1, 3), DumpOf(1).wait_message("recv", 0, 3), DumpOf(2).wait_message("recv", 1, 3),
                                                                      DumpOf(3).wait_message("recv", 0, 3)});
  EXPECT_TRUE(found.culprits.empty());
  EXPECT_NE(found.headline.find("wait for each other in a circle"), std::string::npos) << found.headline;
}

TEST(FlightAnalysis, RanksThatCallDifferentCollectivesAreNamedFirst) {
  const FlightFindings found = analyse_flight(std::vector<FlightDump>{DumpOf(0).reduce(5, 2, 3, -1), DumpOf(1).forward(1, 0, 2, 1), DumpOf(2).reduce(5, 2, 3, -1, 128), DumpOf(3).forward(1, 0, 2, 1)});
  EXPECT_EQ(found.headline, "step 41: ranks disagree about collective #5 of data[0]: rank 0 calls all_reduce(sum) of 64 bytes, rank 2 all_reduce(sum) of 128 bytes");
}

TEST(FlightAnalysis, AReductionThatNobodyWaitsForAndAThreadBesideAreNotWhereARankIs) {
  const FlightDump dump = DumpOf(0).forward(0, 1, 5, -1).reduce(5, 2, -1, -1).add({.kind = Kind::kBackground, .name = "checkpoint write"}, 1, -1, -1);
  const FlightFindings found = analyse_flight(std::vector<FlightDump>{dump});
  EXPECT_EQ(found.ranks[0], "rank 0 is still in forward of micro-batch 1 on stage 0 since 5.0 s");
}

TEST(FlightAnalysis, AMessageIsInsideOfTheActionThatBeganInTheSameMicrosecond) {
  const FlightDump waits = DumpOf(0).wait_message("recv", 1, 5).add({.kind = Kind::kAction, .name = "wait for activation", .stage = 1, .microbatch = 0}, 5, 5, -1);
  const FlightFindings found = analyse_flight(std::vector<FlightDump>{waits, DumpOf(1).forward(1, 1, 6, -1), DumpOf(2), DumpOf(3)});
  EXPECT_EQ(found.culprits, std::vector<int>{1});
}

TEST(FlightAnalysis, NothingIsWrongWithAJobThatRuns) {
  const FlightFindings found = analyse_flight(std::vector<FlightDump>{DumpOf(0).forward(0, 1, 0.1, -1), DumpOf(1, 40).forward(1, 0, 0.2, 0.1), DumpOf(2), DumpOf(3)});
  EXPECT_EQ(found.headline, "step 41: no rank waits for another");
  EXPECT_EQ(found.ranks[1], "rank 1 is between operations since 0.1 s: its last was forward of micro-batch 0 on stage 1, in step 40");
  EXPECT_EQ(found.ranks[2], "rank 2 has recorded nothing");
}

}  // namespace
}  // namespace penstock::cluster
