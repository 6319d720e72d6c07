#pragma once
// `penstock agent`: this machine's end of worker groups that are on several machines.
#include <filesystem>
#include <string>
#include <vector>

#include "cluster/host_ledger.h"
#include "rpc/grpc_agents.h"

namespace penstock {

struct WorkerAgentOptions {
  rpc::AgentClientOptions front_door;
  std::string front_door_host;        // as it was given: ranks here find rank 0 under this name
  cluster::HostOffer offer;
  std::filesystem::path log_folder;   // ranks log to LOG_FOLDER/MODEL-GROUP/rank-R.log
  std::filesystem::path program;      // penstock-worker
};

// Joins the front door, starts and ends ranks as it says, and joins again when the connection is lost; until SIGINT or SIGTERM. When the connection is lost
// all ranks here are killed.
// Throws Error when the front door refuses this agent for good.
void run_worker_agent(const WorkerAgentOptions& options);

}  // namespace penstock
