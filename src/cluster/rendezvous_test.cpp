#include "cluster/rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::cluster {
namespace {

using testing::HasSubstr;
using Kind = AgentOrder::Kind;

// Machines by a fake clock; each has one rank, and obeys at its next report.
class RendezvousTest : public testing::Test {
 protected:
  RendezvousTest() { start(); }

  void start(int min_nodes = 1, int max_nodes = 2, int max_restarts = 1, int most_ranks = 8) {
    RendezvousOptions options;
    options.min_nodes = min_nodes;
    options.max_nodes = max_nodes;
    options.max_restarts = max_restarts;
    options.join_timeout = seconds(100);
    options.last_call = seconds(30);
    options.dead_after = seconds(10);
    options.usable = [most_ranks](int available) { return std::pair(std::min(available, most_ranks), fmt::format("{} ranks", std::min(available, most_ranks))); };
    rendezvous_.emplace(options, 1000, now_);
    agents_.clear();
  }

  AgentReport& agent(int node) {
    AgentReport& report = agents_[node];
    if (report.agent.empty()) report = {.agent = fmt::format("agent-{}", node), .job = "none", .node_rank = node, .free_port = 7000 + node};
    return report;
  }
  // Reports and obeys. "run 0+1/2", "wait", "stop", "give up", "end 0".
  std::string beat(int node) {
    AgentReport& me = agent(node);
    auto order = rendezvous_->report(me, now_);
    if (!order.ok()) return order.error().message();
    text_ = order->text;
    if (order->kind == Kind::kRun && order->round != me.round) {
      me.round = order->round;
      me.running = true;
      me.end = RoundEnd::kNone;
    }
    if (order->kind == Kind::kStop) finish(node);
    if (order->kind == Kind::kGiveUp) fail(node, RoundEnd::kPeerFailed, 75);
    switch (order->kind) {
      case Kind::kWait: return "wait";
      case Kind::kRun: return fmt::format("run {}+{}/{}", order->first_rank, order->num_ranks, order->world_size);
      case Kind::kStop: return "stop";
      case Kind::kGiveUp: return "give up";
      case Kind::kEnd: return fmt::format("end {}", order->exit_code);
    }
    return "";
  }
  void finish(int node) {
    agent(node).running = false;
    agent(node).end = RoundEnd::kFinished;
  }
  void fail(int node, RoundEnd end, int exit_code) {
    agent(node).running = false;
    agent(node).end = end;
    agent(node).exit_code = exit_code;
    agent(node).cause = fmt::format("a rank of node {} failed", node);
  }
  // Both nodes, running.
  void two_nodes() {
    (void)beat(0);
    EXPECT_EQ(beat(1), "run 1+1/2");
    for (int i = 0; i < 2; ++i) {  // once told, once running
      EXPECT_EQ(beat(0), "run 0+1/2");
      EXPECT_EQ(beat(1), "run 1+1/2");
    }
  }
  void pass(seconds time, std::initializer_list<int> alive) {
    for (seconds passed(0); passed < time; passed += seconds(1)) {
      now_ += seconds(1);
      for (const int node : alive) last_[node] = beat(node);
    }
  }

  Clock::time_point now_{};
  std::optional<Rendezvous> rendezvous_;
  std::map<int, AgentReport> agents_;
  std::map<int, std::string> last_;
  std::string text_;
};

TEST_F(RendezvousTest, BeginsAtOnceWithAllMachinesAndEndsWhenAllHaveFinished) {
  two_nodes();
  EXPECT_THAT(text_, HasSubstr("nodes 0, 1: 2 ranks"));
  finish(0);
  EXPECT_EQ(beat(0), "wait");
  finish(1);
  EXPECT_EQ(beat(1), "end 0");
  EXPECT_FALSE(rendezvous_->all_told());
  EXPECT_EQ(beat(0), "end 0");
  EXPECT_TRUE(rendezvous_->all_told());
}

TEST_F(RendezvousTest, GivesTheOthersALastCallAtTheStart) {
  pass(seconds(30), {0});
  EXPECT_EQ(last_[0], "wait");
  EXPECT_THAT(text_, HasSubstr("1 to 2 needed, 1 there (node rank 0)"));
  pass(seconds(2), {0});
  EXPECT_EQ(last_[0], "run 0+1/1");
}

TEST_F(RendezvousTest, NeedsTheMachineThatHoldsIt) {
  start(1, 3);
  pass(seconds(60), {1, 2});
  EXPECT_EQ(last_[1], "wait");
  pass(seconds(1), {0, 1, 2});
  EXPECT_EQ(beat(0), "run 0+1/3");
}

TEST_F(RendezvousTest, GoesOnWithoutALostMachineAndCountsNoRestart) {
  start(1, 2, 0);
  two_nodes();
  pass(seconds(5), {0});
  EXPECT_EQ(last_[0], "run 0+1/2");
  fail(0, RoundEnd::kPeerFailed, 75);  // its ranks notice first
  pass(seconds(3), {0});
  EXPECT_EQ(last_[0], "wait") << "node 1 may still live";
  pass(seconds(4), {0});
  EXPECT_EQ(last_[0], "run 0+1/1");
  EXPECT_THAT(text_, HasSubstr("node 1 (agent-1) has not answered for 10.0 s; going on with node 0: 1 ranks"));
}

TEST_F(RendezvousTest, AReturnedMachineJoinsAfterACheckpoint) {
  two_nodes();
  pass(seconds(12), {0});
  EXPECT_EQ(beat(0), "run 0+1/1");
  agents_.erase(1);
  agent(1).agent = "agent-1-again";
  EXPECT_EQ(beat(1), "wait");
  EXPECT_EQ(beat(0), "stop");
  EXPECT_EQ(beat(0), "run 0+1/2");
  EXPECT_THAT(text_, HasSubstr("node 1 has come; going on with nodes 0, 1"));
  EXPECT_EQ(beat(1), "run 1+1/2");
}

TEST_F(RendezvousTest, AMachineThatComesBackBeforeItWasMissedWaitsForItsFormerLife) {
  two_nodes();
  agent(1) = {.agent = "agent-1-again", .job = "none", .node_rank = 1, .free_port = 1};
  pass(seconds(5), {0, 1});
  EXPECT_EQ(last_[1], "wait");
  EXPECT_THAT(text_, HasSubstr("agent-1 to go, which had node rank 1 before"));
  pass(seconds(8), {0, 1});
  EXPECT_EQ(last_[1], "run 1+1/2");
}

TEST_F(RendezvousTest, RefusesASecondMachineOfTheSameNodeRank) {
  two_nodes();
  AgentReport twin = {.agent = "twin", .job = "none", .node_rank = 1};
  for (int second = 0; second < 12; ++second) {
    pass(seconds(1), {0, 1});
    const auto order = rendezvous_->report(twin, now_);
    if (second < 9) {
      ASSERT_TRUE(order.ok());
    }
    if (second == 11) {
      ASSERT_FALSE(order.ok());
      EXPECT_THAT(order.error().message(), HasSubstr("node rank 1 is taken by agent-1"));
    }
  }
  EXPECT_EQ(last_[1], "run 1+1/2") << "the twin does no harm";
}

TEST_F(RendezvousTest, FailuresCountAndRunOut) {
  two_nodes();
  fail(1, RoundEnd::kFailed, 1);
  EXPECT_EQ(beat(1), "wait");
  EXPECT_EQ(beat(0), "give up");
  EXPECT_EQ(beat(0), "run 0+1/2");
  EXPECT_THAT(text_, HasSubstr("a rank of node 1 failed (restart 1 of 1); going on with nodes 0, 1"));
  EXPECT_EQ(beat(1), "run 1+1/2");
  EXPECT_EQ(beat(0), "run 0+1/2");
  fail(1, RoundEnd::kFailed, 3);
  (void)beat(1);
  EXPECT_EQ(beat(0), "give up");
  EXPECT_EQ(beat(0), "end 3");
  EXPECT_THAT(text_, HasSubstr("a rank of node 1 failed after 1 restart, the last"));
  EXPECT_EQ(beat(1), "end 3");
}

TEST_F(RendezvousTest, WhatTheUserHasToMendEndsTheJob) {
  two_nodes();
  fail(1, RoundEnd::kFailed, 2);
  EXPECT_EQ(beat(1), "end 2");
  EXPECT_EQ(beat(0), "end 2");
}

TEST_F(RendezvousTest, AMachineThatIsAskedToLeaveLeavesACheckpointAndTheOthersGoOn) {
  two_nodes();
  agent(1).leaving = true;
  EXPECT_EQ(beat(1), "run 1+1/2") << "its ranks end after their step";
  finish(0);  // a step is the same for all
  EXPECT_EQ(beat(0), "wait");
  finish(1);
  EXPECT_EQ(beat(1), "wait");
  EXPECT_EQ(beat(0), "run 0+1/1");
  EXPECT_THAT(text_, HasSubstr("a machine was asked to stop; going on with node 0"));
}

TEST_F(RendezvousTest, AskingTheMachineThatHoldsItEndsTheJob) {
  two_nodes();
  agent(0).leaving = true;
  (void)beat(0);
  finish(0);
  EXPECT_EQ(beat(0), "wait") << "node 1 still writes";
  finish(1);
  EXPECT_EQ(beat(1), "end 0");
  EXPECT_EQ(beat(0), "end 0");
  EXPECT_THAT(text_, HasSubstr("was asked to stop"));
}

TEST_F(RendezvousTest, MachinesBeyondTheLargestNumberAreSparesThatTakeALostOnesPlace) {
  start(2, 2);
  (void)beat(0);
  (void)beat(1);
  (void)beat(2);
  pass(seconds(1), {0, 1, 2});
  EXPECT_EQ(last_[2], "wait");
  pass(seconds(12), {0, 2});
  EXPECT_EQ(last_[0], "run 0+1/2");
  EXPECT_EQ(beat(2), "run 1+1/2");
}

TEST_F(RendezvousTest, MachinesThatTheJobCannotUseGetNoRanksAndCauseNoRestart) {
  start(1, 3, 0, 2);
  (void)beat(0);
  EXPECT_EQ(beat(1), "wait");
  EXPECT_EQ(beat(2), "wait");
  EXPECT_EQ(beat(0), "run 0+1/2");
  EXPECT_EQ(beat(1), "run 1+1/2");
  EXPECT_THAT((beat(2), text_), HasSubstr("as a spare"));
  pass(seconds(5), {0, 1, 2});
  EXPECT_EQ(last_[0], "run 0+1/2");
  finish(0);
  finish(1);
  (void)beat(0);
  EXPECT_EQ(beat(1), "end 0");
  EXPECT_EQ(beat(2), "end 0");
}

TEST_F(RendezvousTest, SaysWhatItWaitedForWhenTooFewCome) {
  start(2, 3);
  pass(seconds(99), {0});
  EXPECT_EQ(last_[0], "wait");
  pass(seconds(3), {0});
  EXPECT_EQ(last_[0], "end 1");
  EXPECT_THAT(text_, HasSubstr("after 100 s still waiting for machines: 2 to 3 needed, 1 there (node rank 0)"));
}

TEST_F(RendezvousTest, APauseOfItsOwnProcessLosesNobody) {
  two_nodes();
  now_ += seconds(60);
  EXPECT_EQ(beat(0), "run 0+1/2");
  EXPECT_EQ(beat(1), "run 1+1/2");
}

TEST_F(RendezvousTest, RefusesAgentsOfAnotherJob) {
  agent(1).job = "other";
  EXPECT_THAT(beat(1), HasSubstr("rendezvous of job 'none', and node 1 wants job 'other'"));
}

}  // namespace
}  // namespace penstock::cluster
