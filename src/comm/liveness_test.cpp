// Ranks as threads of this process; tests/comm kills real processes.
#include "comm/liveness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/mutex.h"
#include "comm/c10d_compat.h"
#include "comm/network_address.h"

namespace penstock::comm {
namespace {

// The store of a job of `size` ranks, and their Liveness objects.
struct Job {
  explicit Job(int size) {
    server = compat::make_tcp_store("127.0.0.1", port, /*is_server=*/true, seconds(60));
    for (int rank = 0; rank < size; ++rank) {
      LivenessOptions options;
      options.interval = milliseconds(20);
      options.dead_after = seconds(2);
      options.on_failure = [this](const std::string& /*text*/) { ++num_calls; };
      options.on_alarm = [this, rank](const std::string& text) {
        MutexLock lock(mutex);
        alarms[rank].push_back(text);
      };
      ranks.push_back(std::make_unique<Liveness>(cluster::RankInfo{rank, size, rank, size, "127.0.0.1", port}, options));
    }
  }
  const int port = find_free_port();
  std::atomic<int> num_calls = 0;
  Mutex mutex;
  std::map<int, std::vector<std::string>> alarms GUARDED_BY(mutex);  // by rank
  compat::StorePtr server;
  std::vector<std::unique_ptr<Liveness>> ranks;
};

Deadline soon() { return Deadline::after(seconds(60)); }

TEST(Liveness, AFailureThatARankPostsIsReadByAllOthers) {
  Job job(3);
  job.ranks[1]->post_failure("disk full", soon());
  for (const int rank : {0, 2}) {
    const auto failure = job.ranks[static_cast<size_t>(rank)]->first_failure(soon());
    ASSERT_TRUE(failure);
    EXPECT_NE(failure->find("rank 1 (pid "), std::string::npos) << *failure;
    EXPECT_NE(failure->find("failed: disk full"), std::string::npos) << *failure;
  }
  job.ranks.clear();
  EXPECT_EQ(job.num_calls, 2) << "once on each of the others";
}

TEST(Liveness, WhenRank0FailsItLeavesOnlyAfterTheOthersKnow) {
  Job job(3);
  job.ranks[0]->post_failure("bad config", soon());
  for (const int rank : {1, 2}) {
    const auto failure = job.ranks[static_cast<size_t>(rank)]->first_failure(soon());
    ASSERT_TRUE(failure);
    EXPECT_NE(failure->find("rank 0 (pid "), std::string::npos) << *failure;
    EXPECT_NE(failure->find("failed: bad config"), std::string::npos) << *failure;
  }
}

TEST(Liveness, AnAlarmIsHeardOnceByAllRanksAndIsNoFailure) {
  Job job(3);
  const auto heard = [&](const std::string& text) {
    for (const Deadline deadline = soon(); !deadline.passed(); std::this_thread::sleep_for(milliseconds(5))) {
      MutexLock lock(job.mutex);
      const bool all = std::ranges::all_of(std::vector{0, 1, 2}, [&](int rank) { return !job.alarms[rank].empty() && job.alarms[rank].back() == text; });
      if (all) return true;
    }
    return false;
  };
  job.ranks[1]->raise_alarm("rank 1's step takes longer than 30 s");
  EXPECT_TRUE(heard("rank 1's step takes longer than 30 s"));
  job.ranks[0]->raise_alarm("rank 0 was asked");
  EXPECT_TRUE(heard("rank 0 was asked"));
  {
    MutexLock lock(job.mutex);
    for (const auto& [rank, texts] : job.alarms) EXPECT_EQ(texts.size(), 2u) << "rank " << rank;
  }
  EXPECT_FALSE(job.ranks[2]->first_failure(Deadline::after(milliseconds(0))));
}

TEST(Liveness, ASilentRankIsNamedByAllOthers) {
  Job job(3);
  EXPECT_FALSE(job.ranks[0]->first_failure(Deadline::after(milliseconds(200)))) << "all are alive";
  job.ranks[2].reset();
  for (const int rank : {0, 1}) {
    const auto failure = job.ranks[static_cast<size_t>(rank)]->first_failure(soon());
    ASSERT_TRUE(failure);
    EXPECT_NE(failure->find("rank 2 (pid "), std::string::npos) << *failure;
    EXPECT_NE(failure->find("has stopped answering for 2."), std::string::npos) << *failure;
  }
}

TEST(Liveness, ACleanEndIsNoFailureAndRank0LeavesLast) {
  Job job(3);
  std::atomic<int> num_others_done = 0;
  std::thread rank_0([&] {
    job.ranks[0]->post_done(soon());
    EXPECT_EQ(num_others_done, 2);
  });
  for (const int rank : {2, 1}) {
    ++num_others_done;  // before, since rank 0 may see it first
    job.ranks[static_cast<size_t>(rank)]->post_done(soon());
    job.ranks[static_cast<size_t>(rank)].reset();
  }
  rank_0.join();
  EXPECT_FALSE(job.ranks[0]->first_failure(Deadline::after(milliseconds(0))));
  EXPECT_EQ(job.num_calls, 0);
}

TEST(Liveness, AStoreThatIsGoneIsRank0sDeath) {
  Job job(2);
  EXPECT_FALSE(job.ranks[1]->first_failure(Deadline::after(milliseconds(200))));
  job.ranks[0].reset();
  job.server.reset();
  const auto failure = job.ranks[1]->first_failure(soon());
  ASSERT_TRUE(failure);
  EXPECT_NE(failure->find("rank 0 (pid "), std::string::npos) << *failure;
  EXPECT_NE(failure->find("127.0.0.1:" + std::to_string(job.port)), std::string::npos) << *failure;
}

TEST(Liveness, AWorldOfOneHearsItsOwnAlarm) {
  std::string heard;
  LivenessOptions options;
  options.on_alarm = [&](const std::string& text) { heard = text; };
  Liveness alone({0, 1, 0, 1, "127.0.0.1", 1}, options);
  alone.raise_alarm("stuck");
  EXPECT_EQ(heard, "stuck");
}

TEST(Liveness, AWorldOfOneHasNobodyToWatch) {
  Liveness alone(cluster::RankInfo{}, {});
  EXPECT_FALSE(alone.first_failure(soon()));
  alone.post_failure("x", soon());
  alone.post_done(soon());
}

TEST(Liveness, AStoreThatIsNotThereIsAnError) {
  LivenessOptions options;
  options.dead_after = seconds(1);
  EXPECT_THROW(Liveness(cluster::RankInfo{1, 2, 1, 2, "127.0.0.1", find_free_port()}, options), Error);
}

}  // namespace
}  // namespace penstock::comm
