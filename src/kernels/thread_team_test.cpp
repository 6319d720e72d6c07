#include "kernels/thread_team.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <set>
#include <string>

#include "base/clock.h"
#include "kernels/parallel.h"

namespace penstock::kernels {
namespace {

TEST(ThreadTeam, RunsEachPieceOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadTeam team(threads);
    for (const int64_t pieces : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(pieces));
      team.run(pieces, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
      for (const auto& count : seen) ASSERT_EQ(count, 1) << threads << " threads, " << pieces << " pieces";
    }
  }
}

TEST(ThreadTeam, LoopsInARowDoNotMixTheirPieces) {
  ThreadTeam team(3);
  for (int loop = 0; loop < 20000; ++loop) {
    std::atomic<int64_t> sum{0};
    const int64_t pieces = 1 + loop % 5;
    team.run(pieces, [&](int64_t i) { sum += 1000 * loop + i; });
    ASSERT_EQ(sum, pieces * 1000 * loop + pieces * (pieces - 1) / 2);
  }
}

TEST(ThreadTeam, HelpersTakePartWhileTheCallerIsBusy) {
  ThreadTeam team(2);
  std::atomic<int> arrived{0};
  team.run(2, [&](int64_t) {  // each piece waits for the other: one thread alone would never end
    ++arrived;
    const Deadline deadline = Deadline::after(seconds(30));
    while (arrived < 2 && !deadline.passed()) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadTeam, ThrowsThePiecesExceptionAndGoesOn) {
  ThreadTeam team(2);
  EXPECT_THROW(team.run(50, [](int64_t i) { if (i == 7) throw std::runtime_error("seven"); }), std::runtime_error);
  std::atomic<int> count{0};
  team.run(50, [&](int64_t) { ++count; });
  EXPECT_EQ(count, 50);
}

// The states of this process's threads, by id: 'R' runs, 'S' sleeps.
std::map<std::string, char> thread_states() {
  std::map<std::string, char> states;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string line;
    std::getline(std::ifstream(task.path() / "stat"), line);
    const size_t end = line.rfind(')');
    if (end != std::string::npos && end + 2 < line.size()) states[task.path().filename()] = line[end + 2];
  }
  return states;
}

TEST(ThreadTeam, HelpersSleepWhenThereIsNothingToDo) {
  const auto before = thread_states();
  ThreadTeam team(3);
  team.run(10, [](int64_t) {});
  const auto asleep = [&] {
    int count = 0;
    for (const auto& [id, state] : thread_states()) count += !before.contains(id) && state == 'S' ? 1 : 0;
    return count;
  };
  const Deadline deadline = Deadline::after(seconds(30));
  while (asleep() < 2 && !deadline.passed()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(asleep(), 2);
  std::atomic<int> arrived{0};
  team.run(3, [&](int64_t) {  // and wake up again
    ++arrived;
    while (arrived < 3 && !deadline.passed()) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 3);
}

TEST(ParallelFor, CoversTheRangeOnATeamWithOpenMpKeptOut) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(4);
  ThreadTeam team(2);
  {
    const TeamScope scope(team);
    EXPECT_EQ(omp_get_max_threads(), 1);
    for (const int64_t count : {0, 1, 5, 33, 1000}) {
      for (const int64_t grain : {1, 7}) {
        std::mutex mutex;
        std::multiset<int64_t> seen;
        parallel_for(10, 10 + count, grain, [&](int64_t first, int64_t end) {
          const std::lock_guard lock(mutex);
          EXPECT_EQ(omp_get_max_threads(), 1) << "a piece must not share its work out again";
          for (int64_t i = first; i < end; ++i) seen.insert(i);
        });
        EXPECT_EQ(seen.size(), static_cast<size_t>(count));
        if (count > 0) {
          EXPECT_EQ(*seen.rbegin() - *seen.begin() + 1, count);
        }
      }
    }
  }
  EXPECT_EQ(omp_get_max_threads(), 4);
  EXPECT_EQ(current_team(), nullptr);
  omp_set_num_threads(before);
}

}  // namespace
}  // namespace penstock::kernels
