#include "rpc/agent_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agents.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::agents::v1;
using cluster::RanksReport;

cluster::StartRanks start_of_two() {
  cluster::StartRanks start;
  start.id = 7;
  start.group = "big-0";
  start.arguments = {"serve", "--model", "/models/b\xffg"};  // a path need not be UTF-8
  start.model_folder = "/models/b\xffg";
  start.hidden_variables = "SECRET.*";
  start.first_rank = 2;
  start.num_ranks = 2;
  start.world_size = 4;
  start.master_addr = "host1";
  start.master_port = 29500;
  start.job = "77-1";
  start.omp_threads = 3;
  start.devices = {"4", "GPU-8a"};
  start.cores = {"0", "1"};
  return start;
}

TEST(AgentWire, AnOrderToStartArrivesAsItWasGiven) {
  const auto order = order_of(to_order(start_of_two())).value();
  const auto& start = std::get<cluster::StartRanks>(order);
  EXPECT_EQ(start.id, 7u);
  EXPECT_EQ(start.group, "big-0");
  EXPECT_EQ(start.arguments, start_of_two().arguments);
  EXPECT_EQ(start.model_folder, start_of_two().model_folder);
  EXPECT_EQ(start.hidden_variables, "SECRET.*");
  EXPECT_EQ(start.first_rank, 2);
  EXPECT_EQ(start.num_ranks, 2);
  EXPECT_EQ(start.world_size, 4);
  EXPECT_EQ(start.master_addr, "host1");
  EXPECT_EQ(start.master_port, 29500);
  EXPECT_EQ(start.job, "77-1");
  EXPECT_EQ(start.omp_threads, 3);
  EXPECT_EQ(start.devices, start_of_two().devices);
  EXPECT_EQ(start.cores, start_of_two().cores);
  EXPECT_EQ(std::get<cluster::StopRanks>(order_of(to_order(cluster::StopRanks{9, milliseconds(250)})).value()).grace, milliseconds(250));
}

TEST(AgentWire, AHelloAndAReportArriveAsTheyWereGiven) {
  const auto hello = hello_of(to_report(cluster::AgentHello{1, {"b", {"0", "1"}, {"2"}}, "host1"})).value();
  EXPECT_EQ(hello.offer.name, "b");
  EXPECT_EQ(hello.offer.devices.size(), 2u);
  EXPECT_EQ(hello.offer.cores.size(), 1u);
  EXPECT_EQ(hello.front_door, "host1");
  const auto report = ranks_report_of(to_report(RanksReport{3, RanksReport::Kind::kRankEnded, 5, {true, 9}, Code::kNotFound, "log \xfe"})).value();
  EXPECT_EQ(report.id, 3u);
  EXPECT_EQ(report.kind, RanksReport::Kind::kRankEnded);
  EXPECT_EQ(report.rank, 5);
  EXPECT_EQ(report.status, (cluster::ExitStatus{true, 9}));
  EXPECT_EQ(report.code, Code::kNotFound);
  EXPECT_EQ(report.text, "log \xfe");
}

TEST(AgentWire, WhatNoAgentOfThisVersionSaysIsRefused) {
  EXPECT_FALSE(hello_of(pb::Report()).ok()) << "nothing at all";
  EXPECT_FALSE(hello_of(to_report(RanksReport{})).ok()) << "a report before the hello";
  EXPECT_FALSE(hello_of(to_report(cluster::AgentHello{1, {"", {}, {}}, "x"})).ok()) << "no name";
  EXPECT_FALSE(hello_of(to_report(cluster::AgentHello{1, {std::string(300, 'n'), {}, {}}, "x"})).ok());
  EXPECT_FALSE(hello_of(to_report(cluster::AgentHello{1, {"b", std::vector<std::string>(2000, "0"), {}}, "x"})).ok());
  EXPECT_FALSE(ranks_report_of(to_report(cluster::AgentHello{1, {"b", {}, {}}, "x"})).ok()) << "a second hello";
  for (const int kind : {-1, 3}) {
    pb::Report report = to_report(RanksReport{});
    report.mutable_ranks()->set_kind(kind);
    EXPECT_FALSE(ranks_report_of(report).ok()) << kind;
  }
  for (const int code : {-1, 12}) {
    pb::Report report = to_report(RanksReport{});
    report.mutable_ranks()->set_code(code);
    EXPECT_FALSE(ranks_report_of(report).ok()) << code;
  }
}

TEST(AgentWire, AnOrderWhoseNumbersDoNotFitIsRefused) {
  EXPECT_FALSE(order_of(pb::Order()).ok());
  const auto refused = [](void (*change)(cluster::StartRanks&)) {
    cluster::StartRanks start = start_of_two();
    change(start);
    return !order_of(to_order(start)).ok();
  };
  EXPECT_TRUE(refused([](cluster::StartRanks& start) { start.num_ranks = 0; }));
  EXPECT_TRUE(refused([](cluster::StartRanks& start) { start.first_rank = 3; }));
  EXPECT_TRUE(refused([](cluster::StartRanks& start) { start.first_rank = -1; }));
  EXPECT_TRUE(refused([](cluster::StartRanks& start) { start.world_size = 1 << 30; }));
  EXPECT_TRUE(refused([](cluster::StartRanks& start) { start.master_port = 65536; }));
}

}  // namespace
}  // namespace penstock::rpc
