#include "cluster/process_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <set>
#include <thread>

#include "base/file.h"
#include "base/temp_dir.h"

namespace penstock::cluster {
namespace {

Deadline soon() { return Deadline::after(seconds(20)); }  // generous: only a failing test waits so long

RankGroupOptions shell(int num_ranks, const std::string& script) {
  RankGroupOptions options;
  options.num_ranks = num_ranks;
  options.process.argv = {"sh", "-c", script};
  return options;
}

TEST(RankGroup, TellsEachRankWhoItIs) {
  TempDir dir;
  RankGroupOptions options = shell(3, "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $COMMON");
  options.process.env = {"COMMON=x"};
  options.log_folder = dir.path();
  auto group = RankGroup::spawn(options).value();
  while (group->wait_any(soon())) {
  }
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(read_file(dir.path() / fmt::format("rank-{}.log", rank), 1000).value(),
              fmt::format("{} 3 {} 3 127.0.0.1 {} x\n", rank, rank, group->master_port()));
  }
}

TEST(RankGroup, StartsOneMachinesPartOfAJob) {
  TempDir dir;
  RankGroupOptions options = shell(2, "echo $RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $MASTER_PORT $PENSTOCK_JOB_ID; exit $RANK");
  options.first_rank = 4;
  options.world_size = 8;
  options.master_addr = "host0";
  options.master_port = 1234;
  options.job = "mine.7";
  options.log_folder = dir.path();
  auto group = RankGroup::spawn(options).value();
  while (const auto ended = group->wait_any(soon())) EXPECT_EQ(ended->status.value, ended->rank);
  EXPECT_EQ(read_file(dir.path() / "rank-4.log", 1000).value(), "4 8 0 2 host0 1234 mine.7\n");
  EXPECT_EQ(read_file(dir.path() / "rank-5.log", 1000).value(), "5 8 1 2 host0 1234 mine.7\n");
}

TEST(RankGroup, CountsRanksOfOtherProcessesOnThisMachine) {
  RankGroupOptions options = shell(1, "test $LOCAL_RANK/$LOCAL_WORLD_SIZE = 1/2");
  options.first_rank = 1;
  options.world_size = 2;
  options.others_on_this_machine = true;
  EXPECT_TRUE(RankGroup::spawn(options).value()->wait_any(soon())->status.success());
}

TEST(RankGroup, TellsPythonProgramsWhatTorchrunWould) {
  TempDir dir;
  RankGroupOptions options = shell(2, "echo $GROUP_RANK $GROUP_WORLD_SIZE $ROLE_RANK $ROLE_WORLD_SIZE $ROLE_NAME $TORCHELASTIC_RUN_ID $TORCHELASTIC_USE_AGENT_STORE $LOCAL_RANK");
  options.first_rank = 2;
  options.world_size = 4;
  options.master_port = 1234;
  options.job = "mine";
  options.variables = RankVariables::kTorchrun;
  options.log_folder = dir.path();
  auto group = RankGroup::spawn(options).value();
  while (group->wait_any(soon())) {
  }
  EXPECT_EQ(read_file(dir.path() / "rank-3.log", 1000).value(), "1 2 3 4 default mine False 1\n");
}

TEST(RankGroup, TellsAProcessThatIsNoRankNothingNotEvenWhatItWouldInherit) {
  ::setenv("LOCAL_RANK", "7", 1);
  RankGroupOptions options = shell(1, "test -z \"$RANK$LOCAL_RANK$WORLD_SIZE$MASTER_ADDR$TORCHELASTIC_RUN_ID\"");
  options.variables = RankVariables::kNone;
  const auto ended = RankGroup::spawn(options).value()->wait_any(soon());
  ::unsetenv("LOCAL_RANK");
  EXPECT_TRUE(ended->status.success());
}

TEST(RankGroup, HandsOutEachEndOnce) {
  auto group = RankGroup::spawn(shell(4, "exit $RANK")).value();
  std::set<int> seen;
  while (const auto ended = group->wait_any(soon())) {
    EXPECT_EQ(ended->status.value, ended->rank);
    EXPECT_TRUE(seen.insert(ended->rank).second) << "rank " << ended->rank << " twice";
  }
  EXPECT_EQ(seen.size(), 4u);
  EXPECT_TRUE(group->all_reported());
}

TEST(RankGroup, NamesTheRankThatWasKilledWhileTheOthersRun) {
  auto group = RankGroup::spawn(shell(3, "exec sleep 100")).value();
  EXPECT_FALSE(group->wait_any(Deadline::after(milliseconds(20))).has_value());
  ASSERT_EQ(::kill(group->pids()[1], SIGKILL), 0);
  const auto ended = group->wait_any(soon());
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->rank, 1);
  EXPECT_EQ(ended->status.describe(), "killed by signal 9 (SIGKILL)");
  EXPECT_FALSE(group->all_reported());
}

TEST(RankGroup, KillsTheStubbornAfterTheGraceAndLetsTheOthersEndThemselves) {
  // Given rank 0 that ends by itself on SIGTERM and rank 1 that ignores it, both past their set-up,
  TempDir dir;
  RankGroupOptions options =
      shell(2, "if [ $RANK = 0 ]; then trap 'exit 5' TERM; else trap '' TERM; fi; touch $DIR/$RANK; while :; do sleep 0.05; done");
  options.process.env = {"DIR=" + dir.path().string()};
  auto group = RankGroup::spawn(options).value();
  const Deadline deadline = soon();
  while ((!std::filesystem::exists(dir.path() / "0") || !std::filesystem::exists(dir.path() / "1")) && !deadline.passed()) ::usleep(10'000);
  // when a watcher waits and the group is ended,
  std::vector<std::string> ends(2);
  std::thread watcher([&] {
    while (const auto ended = group->wait_any(soon())) ends[static_cast<size_t>(ended->rank)] = ended->status.describe();
  });
  group->kill_all(milliseconds(3000));
  watcher.join();
  // then the watcher saw both ends.
  EXPECT_THAT(ends, testing::ElementsAre("exit code 5", "killed by signal 9 (SIGKILL)"));
}

TEST(RankGroup, LeavesNoRankBehindWhenOneCannotStart) {
  RankGroupOptions options = shell(2, "sleep 100");
  options.process.argv = {"/nowhere/worker"};
  const auto refused = RankGroup::spawn(options);
  EXPECT_EQ(refused.error().code(), Code::kNotFound);
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("rank 0 of 2: cannot start /nowhere/worker"));
}

TEST(RankGroup, IsEndedByItsDestructor) {
  std::vector<pid_t> pids;
  {
    auto group = RankGroup::spawn(shell(2, "exec sleep 100")).value();
    pids = group->pids();
  }
  for (const pid_t pid : pids) EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(FreeTcpPort, IsAPortThatProgramsMayUse) {
  const int port = free_tcp_port().value();
  EXPECT_GE(port, 1024);
  EXPECT_LE(port, 65535);
}

}  // namespace
}  // namespace penstock::cluster
