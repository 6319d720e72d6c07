#pragma once
// The agents' messages (cluster/agent_messages.h) as protobuf, both ways. Internal to rpc/: the types of protobuf are declared, not included.
#include "base/error.h"
#include "cluster/agent_messages.h"
#include "rpc/grpc_agents.h"

namespace penstock::agents::v1 {
class Report;
class Order;
}  // namespace penstock::agents::v1

namespace penstock::rpc {

[[nodiscard]] agents::v1::Report to_report(const cluster::AgentHello& hello);
[[nodiscard]] agents::v1::Report to_report(const cluster::RanksReport& report);
[[nodiscard]] agents::v1::Order to_order(const cluster::StartRanks& start);
[[nodiscard]] agents::v1::Order to_order(const cluster::StopRanks& stop);

// kInvalidArgument: the message is of another kind, or no agent of this version makes it.
[[nodiscard]] Result<cluster::AgentHello> hello_of(const agents::v1::Report& report);
[[nodiscard]] Result<cluster::RanksReport> ranks_report_of(const agents::v1::Report& report);
[[nodiscard]] Result<AgentOrder> order_of(const agents::v1::Order& order);

}  // namespace penstock::rpc
