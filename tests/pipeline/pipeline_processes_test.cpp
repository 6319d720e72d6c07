// A pipeline of real processes over c10d: the same losses as one process, and what the others say when one dies.
#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "tests/support/rank_processes.h"

namespace penstock {
namespace {

// The losses that every rank prints.
std::string losses(const std::string& schedule, int ranks, int microbatches) {
  RankProcesses job(PIPELINE_RANK, ranks, {schedule, std::to_string(ranks), std::to_string(microbatches)});
  std::string first;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto status = job.rank(rank).wait(Deadline::after(seconds(100)));
    EXPECT_TRUE(status && status->success()) << "rank " << rank << ":\n" << job.log(rank);
    if (rank == 0) first = job.log(0);
    EXPECT_EQ(job.log(rank), first) << "every rank knows the same losses";
  }
  return first;
}

std::vector<double> numbers(const std::string& log) {
  std::vector<double> values;
  for (size_t at = log.find("loss "); at != std::string::npos; at = log.find("loss ", at + 1)) values.push_back(std::stod(log.substr(at + 5)));
  return values;
}

class Processes : public testing::TestWithParam<std::string> {};

TEST_P(Processes, GiveTheLossesOfOne) {
  const auto whole = numbers(losses("gpipe", 1, 8));
  ASSERT_EQ(whole.size(), 5u);
  for (const int ranks : {2, 4}) {
    const auto cut = numbers(losses(GetParam(), ranks, 8));
    ASSERT_EQ(cut.size(), 5u) << ranks << " ranks";
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(cut[i], whole[i], 1e-6 * whole[i]) << ranks << " ranks, step " << i + 1;
  }
}

INSTANTIATE_TEST_SUITE_P(Pipeline, Processes, testing::Values("gpipe", "1f1b", "eager-1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "zb-v", "dualpipev"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

// Over Gloo a payload moves when its receiver asks for it: an order that uses messages late must not lock ranks up.
TEST(Pipeline, ManyMicrobatchesThatAreUsedLateDoNotLockUp) {
  const auto whole = numbers(losses("gpipe", 1, 40));
  const auto cut = numbers(losses("looped-bfs", 2, 40));
  ASSERT_EQ(cut.size(), 5u);
  for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(cut[i], whole[i], 1e-6 * whole[i]);
}

struct Death {
  const char* where;
  const char* schedule;
};
void PrintTo(const Death& death, std::ostream* out) { *out << death.where << " of " << death.schedule; }  // in the test's name

class DeathAt : public testing::TestWithParam<Death> {};

TEST_P(DeathAt, IsNamedByAllOthersWithinTheDeadline) {
  constexpr int kVictim = 1;
  RankProcesses job(PIPELINE_RANK, 3, {GetParam().schedule, "3", "6", std::to_string(kVictim), GetParam().where});
  const auto status = job.rank(kVictim).wait(Deadline::after(seconds(100)));
  ASSERT_TRUE(status) << job.log(kVictim);
  EXPECT_TRUE(status->signalled) << "it never came to " << GetParam().where << ":\n" << job.log(kVictim);
  job.expect_others_name(kVictim, Deadline::after(seconds(10)));
  EXPECT_EQ(numbers(job.log(0)).size(), 1u) << "the first step was whole:\n" << job.log(0);
}

INSTANTIATE_TEST_SUITE_P(Pipeline, DeathAt,
                         testing::Values(Death{"F", "1f1b"}, Death{"B", "1f1b"}, Death{"I", "zb-h1"}, Death{"W", "zb-h1"}, Death{"SEND_F", "1f1b"},
                                         Death{"RECV_F", "1f1b"}, Death{"SEND_B", "1f1b"}, Death{"RECV_B", "1f1b"}),
                         [](const auto& info) { return std::string(info.param.where); });

TEST(Pipeline, ALayerThatThrowsIsNamedOnEveryRank) {
  RankProcesses job(PIPELINE_RANK, 3, {"1f1b", "3", "6", "1", "throw"});
  for (int rank = 0; rank < 3; ++rank) {
    const auto status = job.rank(rank).wait(Deadline::after(seconds(100)));
    ASSERT_TRUE(status) << job.log(rank);
    EXPECT_EQ(status->describe(), rank == 1 ? "exit code 1" : "exit code 75") << job.log(rank);
    EXPECT_NE(job.log(rank).find("rank 1, stage 1, action F of micro-batch 2: the layer is out of order"), std::string::npos) << "rank " << rank << ":\n" << job.log(rank);
  }
}

}  // namespace
}  // namespace penstock
