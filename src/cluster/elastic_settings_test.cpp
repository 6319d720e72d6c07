#include "cluster/elastic_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace penstock::cluster {
namespace {

using testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

// "min:max nproc node host:port job restarts", "none", or the error's message.
std::string told(const ElasticFlags& flags, const Variables& variables = {}) {
  const auto result = elastic_settings(flags, config::fixed_environment(variables));
  if (!result.ok()) {
    EXPECT_EQ(result.error().code(), Code::kInvalidArgument);
    return result.error().message();
  }
  if (!result.value()) return "none";
  const ElasticSettings& s = *result.value();
  return fmt::format("{}:{} {} {} {}:{} {} {}", s.min_nodes, s.max_nodes, s.nproc_per_node, s.node_rank, s.host, s.port, s.job, s.max_restarts);
}

TEST(ElasticSettings, AreNoneWithoutNnodes) {
  EXPECT_EQ(told({}), "none");
  EXPECT_EQ(told({.max_restarts = "3"}), "none") << "one machine restarts its ranks, too";
  EXPECT_EQ(told({}, {{"PET_NPROC_PER_NODE", "2"}, {"PET_NODE_RANK", "1"}}), "none");
}

TEST(ElasticSettings, ReadFlagsAndTorchrunsVariables) {
  EXPECT_EQ(told({.nnodes = "1:4", .nproc_per_node = "2", .node_rank = "3", .rdzv_endpoint = "head:1234", .rdzv_id = "mine", .max_restarts = "5"}), "1:4 2 3 head:1234 mine 5");
  const Variables pet = {{"PET_NNODES", "2"}, {"PET_NPROC_PER_NODE", "4"}, {"PET_NODE_RANK", "1"}, {"PET_RDZV_ENDPOINT", "head"}, {"PET_RDZV_ID", "x"}, {"PET_MAX_RESTARTS", "1"}};
  EXPECT_EQ(told({}, pet), "2:2 4 1 head:29400 x 1");
  EXPECT_EQ(told({.nnodes = "1:2", .max_restarts = "7"}, pet), "1:2 4 1 head:29400 x 7") << "flags win";
  EXPECT_EQ(told({.nnodes = "2"}, {{"PET_MASTER_ADDR", "m"}, {"PET_MASTER_PORT", "99"}, {"SLURM_NODEID", "1"}}), "2:2 0 1 m:99 none 0");
  EXPECT_EQ(told({.nnodes = "2", .rdzv_endpoint = "[fe80::1]:77"}, {{"JOB_COMPLETION_INDEX", "1"}}), "2:2 0 1 fe80::1:77 none 0");
  EXPECT_EQ(told({.nnodes = "1"}), "1:1 0 0 127.0.0.1:0 none 0") << "one machine needs no endpoint";
}

TEST(ElasticSettings, ReadTheTimesOfTheRendezvous) {
  const auto read = [](const std::string& conf) { return elastic_settings({.nnodes = "1", .rdzv_conf = conf}, config::fixed_environment({})); };
  const auto s = read("join_timeout=60,last_call_timeout=0,keep_alive_interval=2,keep_alive_max_attempt=4").value().value();
  EXPECT_EQ(s.join_timeout, seconds(60));
  EXPECT_EQ(s.last_call, seconds(0));
  EXPECT_EQ(s.dead_after, seconds(8));
  EXPECT_THAT(read("join_timeout=soon").error().message(), HasSubstr("--rdzv-conf: expected an integer from 1"));
  EXPECT_THAT(read("timeout=3").error().message(), HasSubstr("of join_timeout, last_call_timeout"));
}

TEST(ElasticSettings, SayWhatIsMissingOrWrong) {
  EXPECT_EQ(told({.nnodes = "two"}), "--nnodes: expected an integer from 1 to 65536, found 'two'");
  EXPECT_THAT(told({.nnodes = "3:2"}), HasSubstr("MIN <= MAX"));
  EXPECT_THAT(told({}, {{"PET_NNODES", "0"}}), HasSubstr("environment variable PET_NNODES"));
  EXPECT_THAT(told({.nnodes = "2"}), HasSubstr("also needs --rdzv-endpoint HOST:PORT"));
  EXPECT_THAT(told({.nnodes = "2", .rdzv_endpoint = "head"}), HasSubstr("also needs --node-rank"));
  EXPECT_THAT(told({.nnodes = "2", .node_rank = "0", .rdzv_endpoint = "head:port"}), HasSubstr("--rdzv-endpoint: expected an integer from 1 to 65535"));
  EXPECT_THAT(told({.rdzv_endpoint = "head"}), HasSubstr("--rdzv-endpoint is for a job of several machines"));
}

TEST(ElasticSettings, InsideTorchrunOnlyTorchrunCountsMachines) {
  const Variables torchrun = {{"TORCHELASTIC_RUN_ID", "none"}, {"PET_NNODES", "2"}, {"PET_MAX_RESTARTS", "3"}};
  EXPECT_EQ(told({}, torchrun), "none");
  EXPECT_THAT(told({.nnodes = "2"}, torchrun), HasSubstr("this is a rank of torchrun"));
}

}  // namespace
}  // namespace penstock::cluster
