// kill -9 of a rank in the middle of each collective: every other rank gets an Error long before its deadline. And what a job costs in sockets.
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdio>
#include <string>

#include "tests/support/rank_processes.h"

namespace penstock::comm {
namespace {

struct Case {
  const char* collective;
  const char* ranks_per_host;  // 0: all share memory
};

class CollectiveDeath : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Collectives, CollectiveDeath,
                         testing::Values(Case{"all_reduce", "0"}, Case{"in_buffer", "0"}, Case{"reduce_scatter", "1"}, Case{"all_gather", "2"}, Case{"rounded", "1"},
                                         Case{"all_reduce", "2"}, Case{"broadcast", "1"}),
                         [](const auto& info) { return fmt::format("{}_with_{}_on_a_host", info.param.collective, info.param.ranks_per_host); });

TEST_P(CollectiveDeath, EndsItForAllOthers) {
  RankProcesses job(COLLECTIVE_RANK, 3, {GetParam().collective, GetParam().ranks_per_host});
  ASSERT_NO_FATAL_FAILURE(job.expect_all_say("READY"));
  ::kill(job.rank(1).pid(), SIGKILL);
  for (const int rank : {0, 2}) {
    const auto status = job.rank(rank).wait(Deadline::after(seconds(30)));
    ASSERT_TRUE(status) << "rank " << rank << " still runs:\n" << job.log(rank);
    EXPECT_EQ(status->describe(), "exit code 75") << job.log(rank);
    EXPECT_NE(job.log(rank).find("FAILED "), std::string::npos) << job.log(rank);
    EXPECT_NE(job.log(rank).find("group 'world'"), std::string::npos) << job.log(rank);
  }
}

// Ranks 0 … 3 on hosts of one, each of which talks to its neighbour only, after collectives of all.
TEST(Sockets, GrowWithThePeersThatARankTalksTo) {
  for (const char* ranks_per_host : {"0", "1"}) {
    RankProcesses job(COLLECTIVE_RANK, 4, {"sockets", ranks_per_host});
    for (int rank = 0; rank < job.size(); ++rank) {
      const auto status = job.rank(rank).wait(Deadline::after(seconds(100)));
      ASSERT_TRUE(status && status->success()) << job.log(rank);
      int before = 0, after = 0;
      const std::string log = job.log(rank);
      ASSERT_EQ(std::sscanf(log.c_str() + log.find("SOCKETS"), "SOCKETS %d then %d", &before, &after), 2) << log;
      // In shared memory a barrier needs none; across hosts it has connected everybody.
      EXPECT_EQ(after, std::string(ranks_per_host) == "0" ? before + 1 : before) << log;
    }
  }
}

}  // namespace
}  // namespace penstock::comm
