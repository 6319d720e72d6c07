#include "rpc/grpc_rendezvous.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace penstock::rpc {
namespace {

using Kind = cluster::AgentOrder::Kind;

cluster::RendezvousOptions options() {
  cluster::RendezvousOptions options;
  options.min_nodes = options.max_nodes = 2;
  options.usable = [](int available) { return std::pair(available, std::string("all")); };
  return options;
}

TEST(GrpcRendezvous, TwoAgentsMeetAndEveryFieldArrives) {
  const auto server = RendezvousServer::start(options(), true, 0).value();
  RendezvousClient zero("127.0.0.1", server->port()), one("localhost", server->port());
  const Deadline deadline = Deadline::after(seconds(20));
  cluster::AgentReport a{.agent = "a", .job = "none", .node_rank = 0, .num_ranks = 2, .free_port = 7777};
  cluster::AgentReport b{.agent = "b", .job = "none", .node_rank = 1, .num_ranks = 3};
  EXPECT_EQ(zero.report(a, deadline).value().kind, Kind::kWait);
  const auto order = one.report(b, deadline).value();
  EXPECT_EQ(order.kind, Kind::kRun);
  EXPECT_EQ(order.first_rank, 2);
  EXPECT_EQ(order.num_ranks, 3);
  EXPECT_EQ(order.world_size, 5);
  EXPECT_EQ(order.master_port, 7777);
  EXPECT_GT(order.round, 0);
  EXPECT_EQ(order.text, "nodes 0, 1: all");
  b.round = order.round;
  b.end = cluster::RoundEnd::kFailed;
  b.exit_code = 2;
  b.cause = "no such text";
  const auto end = one.report(b, deadline).value();
  EXPECT_EQ(end.kind, Kind::kEnd);
  EXPECT_EQ(end.exit_code, 2);
  EXPECT_EQ(end.text, "no such text");
  EXPECT_FALSE(server->all_told());
  (void)zero.report(a, deadline);
  EXPECT_TRUE(server->all_told());
}

TEST(GrpcRendezvous, RefusalsKeepTheirReason) {
  const auto server = RendezvousServer::start(options(), true, 0).value();
  RendezvousClient client("127.0.0.1", server->port());
  const auto refused = client.report({.agent = "a", .job = "other", .node_rank = 0}, Deadline::after(seconds(20)));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
  EXPECT_THAT(refused.error().message(), testing::HasSubstr("--rdzv-id"));
}

TEST(GrpcRendezvous, NobodyThereAndAPortThatIsTakenAreUnavailable) {
  const auto server = RendezvousServer::start(options(), true, 0).value();
  const auto second = RendezvousServer::start(options(), true, server->port());
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), Code::kUnavailable);
  EXPECT_THAT(second.error().message(), testing::HasSubstr("is taken"));
  RendezvousClient client("127.0.0.1", 1);
  EXPECT_EQ(client.report({.agent = "a", .job = "none", .node_rank = 0}, Deadline::after(seconds(20))).error().code(), Code::kUnavailable);
}

}  // namespace
}  // namespace penstock::rpc
