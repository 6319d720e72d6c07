#include "rpc/agent_wire.h"

#include <utility>

#include "agents.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = penstock::agents::v1;

constexpr size_t kMaxText = 8192;
constexpr int kMaxDevices = 1024;
constexpr int kMaxCores = 65536;
constexpr int kMaxRanks = 65536;

template <typename Repeated>
std::vector<std::string> texts(const Repeated& repeated) {
  return {repeated.begin(), repeated.end()};
}

}  // namespace

pb::Report to_report(const cluster::AgentHello& hello) {
  pb::Report report;
  pb::Hello& message = *report.mutable_hello();
  message.set_protocol(hello.protocol);
  message.set_name(hello.offer.name);
  message.set_front_door(hello.front_door);
  for (const std::string& device : hello.offer.devices) message.add_devices(device);
  for (const std::string& core : hello.offer.cores) message.add_cores(core);
  return report;
}

pb::Report to_report(const cluster::RanksReport& ranks) {
  pb::Report report;
  pb::RanksReport& message = *report.mutable_ranks();
  message.set_id(ranks.id);
  message.set_kind(static_cast<int>(ranks.kind));
  message.set_rank(ranks.rank);
  message.set_signalled(ranks.status.signalled);
  message.set_value(ranks.status.value);
  message.set_code(static_cast<int>(ranks.code));
  message.set_text(ranks.text.substr(0, kMaxText));
  return report;
}

pb::Order to_order(const cluster::StartRanks& start) {
  pb::Order order;
  pb::StartRanks& message = *order.mutable_start();
  message.set_id(start.id);
  message.set_group(start.group);
  for (const std::string& argument : start.arguments) message.add_arguments(argument);
  message.set_model_folder(start.model_folder);
  message.set_hidden_variables(start.hidden_variables);
  message.set_first_rank(start.first_rank);
  message.set_num_ranks(start.num_ranks);
  message.set_world_size(start.world_size);
  message.set_master_addr(start.master_addr);
  message.set_master_port(start.master_port);
  message.set_job(start.job);
  message.set_omp_threads(start.omp_threads);
  for (const std::string& device : start.devices) message.add_devices(device);
  for (const std::string& core : start.cores) message.add_cores(core);
  return order;
}

pb::Order to_order(const cluster::StopRanks& stop) {
  pb::Order order;
  order.mutable_stop()->set_id(stop.id);
  order.mutable_stop()->set_grace_ms(stop.grace.count());
  return order;
}

Result<cluster::AgentHello> hello_of(const pb::Report& report) {
  if (!report.has_hello()) return Error(Code::kInvalidArgument, "an agent's first message must be its hello");
  const pb::Hello& message = report.hello();
  const bool named = !message.name().empty() && message.name().size() <= 256 && message.front_door().size() <= 256;
  if (!named || message.devices_size() > kMaxDevices || message.cores_size() > kMaxCores) {
    return Error(Code::kInvalidArgument, "an agent's hello needs a name of at most 256 bytes, and offers at most 1024 GPUs");
  }
  cluster::AgentHello hello;
  hello.protocol = message.protocol();
  hello.front_door = message.front_door();
  hello.offer = {message.name(), texts(message.devices()), texts(message.cores())};
  return hello;
}

Result<cluster::RanksReport> ranks_report_of(const pb::Report& report) {
  const pb::RanksReport& message = report.ranks();
  const bool known = report.has_ranks() && message.kind() >= 0 && message.kind() <= static_cast<int>(cluster::RanksReport::Kind::kAllEnded) &&
                     message.code() >= 0 && message.code() <= static_cast<int>(Code::kInternal) && message.rank() >= 0;
  if (!known) return Error(Code::kInvalidArgument, "the front door got a report that no agent of this version makes");
  cluster::RanksReport ranks;
  ranks.id = message.id();
  ranks.kind = static_cast<cluster::RanksReport::Kind>(message.kind());
  ranks.rank = message.rank();
  ranks.status = {message.signalled(), message.value()};
  ranks.code = static_cast<Code>(message.code());
  ranks.text = message.text().substr(0, kMaxText);
  return ranks;
}

Result<AgentOrder> order_of(const pb::Order& order) {
  if (order.has_welcome()) return AgentOrder(AgentWelcome{});
  if (order.has_stop()) return AgentOrder(cluster::StopRanks{order.stop().id(), milliseconds(order.stop().grace_ms())});
  const pb::StartRanks& message = order.start();
  const bool sound = order.has_start() && message.first_rank() >= 0 && message.num_ranks() >= 1 && message.world_size() <= kMaxRanks &&
                     message.first_rank() <= message.world_size() - message.num_ranks() && message.master_port() >= 1 && message.master_port() <= 65535;
  if (!sound) return Error(Code::kInvalidArgument, "the front door gives an order that this version does not know");
  cluster::StartRanks start;
  start.id = message.id();
  start.group = message.group();
  start.arguments = texts(message.arguments());
  start.model_folder = message.model_folder();
  start.hidden_variables = message.hidden_variables();
  start.first_rank = message.first_rank();
  start.num_ranks = message.num_ranks();
  start.world_size = message.world_size();
  start.master_addr = message.master_addr();
  start.master_port = message.master_port();
  start.job = message.job();
  start.omp_threads = message.omp_threads();
  start.devices = texts(message.devices());
  start.cores = texts(message.cores());
  return AgentOrder(std::move(start));
}

}  // namespace penstock::rpc
