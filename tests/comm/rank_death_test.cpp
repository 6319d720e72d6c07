// kill -9 and kill -STOP of one rank of three: the others must end within 10 s and name it.
#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "base/temp_dir.h"
#include "cluster/process.h"
#include "comm/network_address.h"

namespace penstock::comm {
namespace {

constexpr int kWorldSize = 3;

class Job {
 public:
  explicit Job(const std::vector<std::string>& more_arguments = {}) {
    const std::string port = std::to_string(find_free_port());
    for (int rank = 0; rank < kWorldSize; ++rank) {
      cluster::ProcessOptions options;
      options.argv = {LIVENESS_RANK, std::to_string(rank), std::to_string(kWorldSize), port};
      options.argv.insert(options.argv.end(), more_arguments.begin(), more_arguments.end());
      options.log_file = log_file(rank);
      ranks_.push_back(cluster::ChildProcess::spawn(options).value());
    }
  }

  [[nodiscard]] std::string log(int rank) const { return read_file(log_file(rank), 1 << 20).value(); }
  cluster::ChildProcess& rank(int rank) { return *ranks_[static_cast<size_t>(rank)]; }

  // Waits until every rank is in its endless wait.
  void expect_ready() const {
    const Deadline deadline = Deadline::after(seconds(100));
    for (int rank = 0; rank < kWorldSize; ++rank) {
      while (log(rank).find("READY") == std::string::npos && !deadline.passed()) std::this_thread::sleep_for(milliseconds(20));
      ASSERT_NE(log(rank).find("READY"), std::string::npos) << "rank " << rank << ":\n" << log(rank);
    }
  }

  // All but `victim` end with exit code 75 in time, and their logs say `verdict` of it.
  void expect_others_name(int victim, const std::string& verdict) {
    const Deadline deadline = Deadline::after(seconds(10));
    for (int rank = 0; rank < kWorldSize; ++rank) {
      if (rank == victim) continue;
      const auto status = this->rank(rank).wait(deadline);
      ASSERT_TRUE(status) << "rank " << rank << " still runs 10 s after the death:\n" << log(rank);
      EXPECT_EQ(status->describe(), "exit code 75") << log(rank);
      // Rank 0 may be lost before the others have read who it is from its store; its number they always know.
      const std::string pid = " (pid " + std::to_string(this->rank(victim).pid()) + " on ";
      const std::string who = "rank " + std::to_string(victim);
      const bool named = log(rank).find(who + pid) != std::string::npos || (victim == 0 && log(rank).find(who + ", which holds") != std::string::npos);
      EXPECT_TRUE(named) << "rank " << rank << ":\n" << log(rank);
      EXPECT_NE(log(rank).find(verdict), std::string::npos) << "rank " << rank << ":\n" << log(rank);
    }
  }

 private:
  [[nodiscard]] std::filesystem::path log_file(int rank) const { return folder_.path() / (std::to_string(rank) + ".log"); }
  const TempDir folder_;
  std::vector<std::unique_ptr<cluster::ChildProcess>> ranks_;
};

TEST(RankDeath, AKilledRankIsNamedByAllOthersWithinTenSeconds) {
  Job job;
  ASSERT_NO_FATAL_FAILURE(job.expect_ready());
  ::kill(job.rank(1).pid(), SIGKILL);
  job.expect_others_name(1, "has ended without a word");
}

TEST(RankDeath, AKilledRank0IsNamedByAllOthersThoughItHeldTheStore) {
  Job job;
  ASSERT_NO_FATAL_FAILURE(job.expect_ready());
  ::kill(job.rank(0).pid(), SIGKILL);
  job.expect_others_name(0, "which holds the store at 127.0.0.1:");
}

TEST(RankDeath, AFrozenRankIsNamedByAllOthersWithinTenSeconds) {
  Job job;
  ASSERT_NO_FATAL_FAILURE(job.expect_ready());
  ::kill(job.rank(2).pid(), SIGSTOP);
  job.expect_others_name(2, "has stopped answering for 5.");
}

TEST(RankDeath, AFrozenRank0IsNamedByAllOthersWithinTenSeconds) {
  Job job;
  ASSERT_NO_FATAL_FAILURE(job.expect_ready());
  ::kill(job.rank(0).pid(), SIGSTOP);
  job.expect_others_name(0, "is gone");
}

TEST(RankDeath, ACleanEndIsTakenForNothingElse) {
  Job job({"leave"});
  for (int rank = 0; rank < kWorldSize; ++rank) {
    const auto status = job.rank(rank).wait(Deadline::after(seconds(100)));
    ASSERT_TRUE(status) << job.log(rank);
    EXPECT_TRUE(status->success()) << status->describe() << "\n" << job.log(rank);
    EXPECT_EQ(job.log(rank).find("VERDICT"), std::string::npos) << job.log(rank);
  }
}

}  // namespace
}  // namespace penstock::comm
