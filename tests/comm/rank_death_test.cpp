// kill -9 and kill -STOP of one rank of three: the others must end within 10 s and name it.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>

#include "tests/support/rank_processes.h"

namespace penstock::comm {
namespace {

constexpr int kWorldSize = 3;

// All but `victim` end within ten seconds, name it and say `verdict` of it.
void expect_verdict(RankProcesses& job, int victim, const std::string& verdict) {
  job.expect_others_name(victim, Deadline::after(seconds(10)));
  for (int rank = 0; rank < job.size(); ++rank) {
    if (rank == victim) continue;
    EXPECT_NE(job.log(rank).find(verdict), std::string::npos) << "rank " << rank << ":\n" << job.log(rank);
  }
}

TEST(RankDeath, AKilledRankIsNamedByAllOthersWithinTenSeconds) {
  RankProcesses job(LIVENESS_RANK, kWorldSize);
  ASSERT_NO_FATAL_FAILURE(job.expect_all_say("READY"));
  ::kill(job.rank(1).pid(), SIGKILL);
  expect_verdict(job, 1, "has ended without a word");
}

TEST(RankDeath, AKilledRank0IsNamedByAllOthersThoughItHeldTheStore) {
  RankProcesses job(LIVENESS_RANK, kWorldSize);
  ASSERT_NO_FATAL_FAILURE(job.expect_all_say("READY"));
  ::kill(job.rank(0).pid(), SIGKILL);
  expect_verdict(job, 0, "which holds the store at 127.0.0.1:");
}

TEST(RankDeath, AFrozenRankIsNamedByAllOthersWithinTenSeconds) {
  RankProcesses job(LIVENESS_RANK, kWorldSize);
  ASSERT_NO_FATAL_FAILURE(job.expect_all_say("READY"));
  ::kill(job.rank(2).pid(), SIGSTOP);
  expect_verdict(job, 2, "has stopped answering for 5.");
}

TEST(RankDeath, AFrozenRank0IsNamedByAllOthersWithinTenSeconds) {
  RankProcesses job(LIVENESS_RANK, kWorldSize);
  ASSERT_NO_FATAL_FAILURE(job.expect_all_say("READY"));
  ::kill(job.rank(0).pid(), SIGSTOP);
  expect_verdict(job, 0, "is gone");
}

TEST(RankDeath, ACleanEndIsTakenForNothingElse) {
  RankProcesses job(LIVENESS_RANK, kWorldSize, {"leave"});
  for (int rank = 0; rank < kWorldSize; ++rank) {
    const auto status = job.rank(rank).wait(Deadline::after(seconds(100)));
    ASSERT_TRUE(status) << job.log(rank);
    EXPECT_TRUE(status->success()) << status->describe() << "\n" << job.log(rank);
    EXPECT_EQ(job.log(rank).find("VERDICT"), std::string::npos) << job.log(rank);
  }
}

}  // namespace
}  // namespace penstock::comm
