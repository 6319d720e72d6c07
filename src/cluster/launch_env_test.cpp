#include "cluster/launch_env.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace penstock::cluster {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

// "rank/world local/local_world addr:port", "none", or the error's message.
std::string told(const Variables& variables) {
  const Result<std::optional<RankInfo>> result = rank_from_environment(config::fixed_environment(variables));
  if (!result.ok()) {
    EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
    return result.error().message();
  }
  if (!result.value()) return "none";
  const RankInfo& i = *result.value();
  return fmt::format("{}/{} {}/{} {}:{}", i.rank, i.world_size, i.local_rank, i.local_world_size, i.master_addr, i.master_port);
}

TEST(LaunchEnv, IsNoRankWithoutALauncher) {
  EXPECT_EQ(told({}), "none");
  EXPECT_EQ(told({{"MASTER_ADDR", "host"}, {"MASTER_PORT", "1"}}), "none");
  EXPECT_EQ(told({{"RANK", ""}, {"WORLD_SIZE", ""}}), "none");
}

TEST(LaunchEnv, ReadsTorchrun) {
  EXPECT_EQ(told({{"RANK", "5"},
                  {"WORLD_SIZE", "8"},
                  {"LOCAL_RANK", "1"},
                  {"LOCAL_WORLD_SIZE", "4"},
                  {"MASTER_ADDR", "n0"},
                  {"MASTER_PORT", "1234"}}),
            "5/8 1/4 n0:1234");
}

TEST(LaunchEnv, FillsInWhatAManifestLeavesOut) {
  EXPECT_EQ(told({{"RANK", "2"}, {"WORLD_SIZE", "4"}}), "2/4 2/4 127.0.0.1:29500") << "all on this machine";
  EXPECT_EQ(told({{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "job-0.svc"}}), "2/4 0/1 job-0.svc:29500") << "one rank a machine";
}

TEST(LaunchEnv, ReadsOpenMpiMpichAndSlurm) {
  EXPECT_EQ(told({{"OMPI_COMM_WORLD_RANK", "1"},
                  {"OMPI_COMM_WORLD_SIZE", "2"},
                  {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                  {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}),
            "1/2 1/2 127.0.0.1:29500");
  EXPECT_EQ(told({{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}, {"MASTER_ADDR", "a"}}),
            "3/4 1/2 a:29500");
  EXPECT_EQ(told({{"SLURM_PROCID", "9"},
                  {"SLURM_STEP_NUM_TASKS", "11"},
                  {"SLURM_LOCALID", "1"},
                  {"SLURM_NODEID", "2"},
                  {"SLURM_STEP_TASKS_PER_NODE", "4(x2),3"},
                  {"SLURM_STEP_NODELIST", "gpu[03-05]"}}),
            "9/11 1/3 gpu03:29500");
  EXPECT_EQ(told({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}, {"SLURM_LOCALID", "1"}}), "1/2 1/2 127.0.0.1:29500");
}

TEST(LaunchEnv, ReadsAnIndexedJobOfKubernetesWhoseManifestSaysHowManyThereAre) {
  EXPECT_EQ(told({{"JOB_COMPLETION_INDEX", "3"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "train-0.train"}}), "3/4 0/1 train-0.train:29500");
  EXPECT_EQ(told({{"JOB_COMPLETION_INDEX", "0"}}), "none") << "the pod may start all ranks itself";
  EXPECT_EQ(told({{"JOB_COMPLETION_INDEX", "0"}, {"RANK", "2"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "a"}}), "2/4 0/1 a:29500") << "RANK wins";
  EXPECT_THAT(told({{"JOB_COMPLETION_INDEX", "4"}, {"WORLD_SIZE", "4"}}), HasSubstr("JOB_COMPLETION_INDEX=4 and WORLD_SIZE=4 contradict"));
}

TEST(LaunchEnv, KnowsTheLaunchersNameOfTheJobAndMakesAPortOfIt) {
  const auto rank = [](const Variables& variables) { return rank_from_environment(config::fixed_environment(variables)).value().value(); };
  Variables slurm = {{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_LOCALID", "0"}, {"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", "1"}};
  EXPECT_EQ(rank(slurm).job, "7.1");
  const int port = rank(slurm).master_port;
  EXPECT_GE(port, 20000);
  EXPECT_LT(port, 32000);
  slurm["SLURM_JOB_ID"] = "8";
  EXPECT_NE(rank(slurm).master_port, port) << "two jobs that share a node";
  slurm["MASTER_PORT"] = "1234";
  EXPECT_EQ(rank(slurm).master_port, 1234);
  slurm["PENSTOCK_JOB_ID"] = "mine";
  EXPECT_EQ(rank(slurm).job, "mine");
  EXPECT_EQ(rank({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "2"}, {"OMPI_MCA_ess_base_jobid", "214"}}).job, "214");
  EXPECT_EQ(rank({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"TORCHELASTIC_RUN_ID", "run"}}).job, "run");
  EXPECT_EQ(rank({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"TORCHELASTIC_RUN_ID", "none"}}).job, "");
}

TEST(LaunchEnv, SaysHowToStartATorchrunThatHoldsThePortItself) {
  const auto result = rank_from_environment(config::fixed_environment({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}}));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code(), Code::kUnimplemented);
  EXPECT_THAT(result.error().message(), HasSubstr("--rdzv-backend=c10d"));
}

TEST(LaunchEnv, FindsSlurmsFirstNode) {
  const auto master = [](const std::string& nodes) {
    return told({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_LOCALID", "0"}, {"SLURM_JOB_NODELIST", nodes}});
  };
  EXPECT_EQ(master("a,b"), "0/2 0/1 a:29500");
  EXPECT_EQ(master("rack[2,4]n[07-09]x,other"), "0/2 0/1 rack2n07x:29500");
  EXPECT_EQ(master("n[1"), "0/2 0/1 n1:29500");
}

TEST(LaunchEnv, TakesABatchScriptAndASingleTaskForNoRank) {
  EXPECT_EQ(told({{"SLURM_JOB_ID", "7"}, {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}}), "none");
  EXPECT_EQ(
      told({{"SLURM_JOB_ID", "7"}, {"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "4"}}),
      "none");
}

TEST(LaunchEnv, NamesHalfSetVariables) {
  EXPECT_EQ(told({{"RANK", "0"}}), "environment variable WORLD_SIZE is not set although RANK is; set both, or neither");
  EXPECT_THAT(told({{"WORLD_SIZE", "2"}}), HasSubstr("RANK is not set although WORLD_SIZE is"));
  EXPECT_THAT(told({{"LOCAL_RANK", "0"}}), HasSubstr("RANK is not set although LOCAL_RANK is"));
  EXPECT_THAT(told({{"OMPI_COMM_WORLD_RANK", "0"}}), HasSubstr("OMPI_COMM_WORLD_SIZE is not set"));
  EXPECT_THAT(told({{"SLURM_PROCID", "0"}}), HasSubstr("SLURM_NTASKS is not set"));
  EXPECT_THAT(told({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", "1"}}),
              HasSubstr("MASTER_ADDR is not set"));
}

TEST(LaunchEnv, NamesVariablesThatContradictEachOther) {
  EXPECT_THAT(told({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), HasSubstr("RANK=2 and WORLD_SIZE=2 contradict"));
  EXPECT_THAT(told({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "1"}}),
              HasSubstr("LOCAL_RANK=1 and LOCAL_WORLD_SIZE=1"));
  EXPECT_THAT(told({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}}),
              HasSubstr("RANK=0, WORLD_SIZE=2 contradict OMPI_COMM_WORLD_RANK=1, OMPI_COMM_WORLD_SIZE=2"));
}

TEST(LaunchEnv, LetsTorchrunRunInsideAnotherLauncher) {
  EXPECT_EQ(told({{"RANK", "0"}, {"WORLD_SIZE", "4"}, {"TORCHELASTIC_RUN_ID", "x"}, {"MASTER_PORT", "29500"}, {"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}}),
            "0/4 0/4 127.0.0.1:29500");
}

TEST(LaunchEnv, RefusesWhatIsNoNumber) {
  EXPECT_EQ(told({{"RANK", "one"}, {"WORLD_SIZE", "2"}}), "environment variable RANK: expected an integer from 0 to 1048576, found 'one'");
  EXPECT_THAT(told({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"MASTER_PORT", "70000"}}),
              HasSubstr("MASTER_PORT: expected an integer from 1 to 65535"));
  EXPECT_THAT(told({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_LOCALID", "0"}, {"SLURM_TASKS_PER_NODE", "x"}}),
              HasSubstr("SLURM_TASKS_PER_NODE"));
}

TEST(LaunchEnv, ReadsBackWhatItWritesForASpawnedRankEvenInsideMpirun) {
  const RankInfo info{.rank = 3, .world_size = 8, .local_rank = 1, .local_world_size = 2, .master_addr = "::1", .master_port = 4242, .job = "77-1"};
  Variables variables = {{"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}};
  for (const std::string& variable : rank_environment(info)) {
    const size_t equals = variable.find('=');
    variables[variable.substr(0, equals)] = variable.substr(equals + 1);
  }
  EXPECT_EQ(rank_from_environment(config::fixed_environment(variables)).value(), info);
}

}  // namespace
}  // namespace penstock::cluster
