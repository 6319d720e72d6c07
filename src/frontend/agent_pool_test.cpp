#include "frontend/agent_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace penstock::frontend {
namespace {

using cluster::RanksReport;
using testing::HasSubstr;

// An agent played by hand: what it was told.
class FakeLink final : public AgentLink {
 public:
  void start_ranks(const cluster::StartRanks& start) override { started.push_back(start); }
  void stop_ranks(const cluster::StopRanks& stop) override { stopped.push_back(stop.id); }
  std::vector<cluster::StartRanks> started;
  std::vector<uint64_t> stopped;
};

class AgentPoolTest : public testing::Test {
 protected:
  std::pair<uint64_t, std::shared_ptr<FakeLink>> join(const std::string& name, int devices, const std::string& front_door = "localhost") {
    auto link = std::make_shared<FakeLink>();
    return {pool.join({cluster::kAgentProtocol, {name, numbered(devices), numbered(4)}, front_door}, link).value(), link};
  }
  static std::vector<std::string> numbered(int count) {
    std::vector<std::string> names;
    for (int i = 0; i < count; ++i) names.push_back(std::to_string(i));
    return names;
  }
  static cluster::GroupShape gpus(int num_hosts, int each) {
    cluster::GroupShape shape;
    shape.num_hosts = num_hosts;
    shape.ranks_per_host = shape.devices_per_host = each;
    shape.on_gpu = true;
    return shape;
  }
  std::unique_ptr<RemoteRanks> start(const cluster::GroupShape& shape) {
    auto ranks = std::move(pool.reserve(shape, told)).value();
    ranks->start({});
    return ranks;
  }

  AgentPool pool;
  cluster::WakeEvent told;
};

TEST_F(AgentPoolTest, TellsEachAgentItsPart) {
  const auto b = join("b", 2), c = join("c", 2, "big-1");
  const auto ranks = start(gpus(2, 2));
  ASSERT_EQ(b.second->started.size(), 1u);
  ASSERT_EQ(c.second->started.size(), 1u);
  EXPECT_EQ(b.second->started[0].first_rank, 2);
  EXPECT_EQ(c.second->started[0].first_rank, 4);
  EXPECT_EQ(c.second->started[0].num_ranks, 2);
  EXPECT_THAT(c.second->started[0].devices, testing::ElementsAre("0", "1"));
  EXPECT_EQ(ranks->front_door(), "big-1") << "the name that is good on other machines, too";
  EXPECT_EQ(ranks->machines(), "'b', 'c'");
}

TEST_F(AgentPoolTest, HandsOutEndsInWords) {
  const auto [agent, link] = join("b", 2);
  const auto ranks = start(gpus(1, 2));
  EXPECT_FALSE(ranks->take_end());
  const uint64_t id = link->started[0].id;
  pool.report(agent, {id, RanksReport::Kind::kRankEnded, 3, {true, 9}, {}, "; its log"});
  pool.report(agent, {id, RanksReport::Kind::kRankEnded, 2, {false, 2}, {}, ""});
  pool.report(agent + 1, {id, RanksReport::Kind::kRankEnded, 2, {false, 1}, {}, ""});
  const auto first = ranks->take_end(), second = ranks->take_end();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->rank, 3);
  EXPECT_EQ(first->how, "was killed by signal 9 (SIGKILL) on machine 'b'");
  EXPECT_TRUE(first->explains);
  EXPECT_EQ(first->log_tail, "; its log");
  EXPECT_EQ(second->how, "ended with exit code 2 on machine 'b'");
  EXPECT_TRUE(second->bad_input);
  EXPECT_FALSE(ranks->take_end()) << "another agent has no say in it";
}

TEST_F(AgentPoolTest, DevicesAreFreeWhenTheAgentSaysThatTheProcessesHaveEnded) {
  const auto [agent, link] = join("b", 2);
  auto ranks = start(gpus(1, 2));
  const uint64_t id = link->started[0].id;
  ranks->stop(milliseconds(5));
  EXPECT_THAT(link->stopped, testing::ElementsAre(id));
  EXPECT_FALSE(ranks->wait_ended(Deadline::after(milliseconds(1))));
  ranks.reset();  // nobody listens any more
  const uint64_t now = pool.changes();
  EXPECT_THAT(pool.reserve(gpus(1, 2), told).error().message(), HasSubstr("'b' with 0 free of 2"));
  pool.report(agent, {id, RanksReport::Kind::kAllEnded, 0, {}, {}, ""});
  pool.wait_for_change(now, Deadline::never());
  EXPECT_TRUE(pool.reserve(gpus(1, 2), told).ok());
}

TEST_F(AgentPoolTest, APlaceThatWasNeverUsedIsFreeAtOnce) {
  (void)join("b", 2);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool.reserve(gpus(1, 2), told).ok());
}

TEST_F(AgentPoolTest, AnAgentThatGoesTakesItsRanksWithIt) {
  const auto [agent, link] = join("b", 2);
  const auto ranks = start(gpus(1, 2));
  pool.leave(agent, "its connection has ended");
  const auto end = ranks->take_end();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->rank, 2);
  EXPECT_EQ(end->how, "is lost with machine 'b': its connection has ended");
  EXPECT_TRUE(ranks->wait_ended(Deadline::never()));
  EXPECT_EQ(pool.num_agents(), 0);
  (void)join("b", 2);
  EXPECT_TRUE(pool.reserve(gpus(1, 2), told).ok()) << "it is back, with everything free";
}

TEST_F(AgentPoolTest, APartThatCannotBeStartedSaysWhy) {
  const auto [agent, link] = join("b", 1);
  const auto ranks = start(gpus(1, 1));
  const uint64_t id = link->started[0].id;
  pool.report(agent, {id, RanksReport::Kind::kNotStarted, 1, {}, Code::kNotFound, "there is no folder /models/x"});
  pool.report(agent, {id, RanksReport::Kind::kAllEnded, 0, {}, {}, ""});
  const auto end = ranks->take_end();
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(end->how, "cannot be started on machine 'b': there is no folder /models/x");
  EXPECT_TRUE(end->bad_input);
}

TEST_F(AgentPoolTest, RefusesASecondAgentOfTheNameAndAnotherProtocol) {
  (void)join("b", 1);
  const auto link = std::make_shared<FakeLink>();
  EXPECT_EQ(pool.join({cluster::kAgentProtocol, {"b", {}, {}}, "x"}, link).error().code(), Code::kAlreadyExists);
  EXPECT_EQ(pool.join({cluster::kAgentProtocol + 1, {"c", {}, {}}, "x"}, link).error().code(), Code::kFailedPrecondition);
}

}  // namespace
}  // namespace penstock::frontend
