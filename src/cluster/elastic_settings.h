#pragma once
// What `penstock train` is told about several machines: flags, and torchrun's variables (PET_*) where a flag is not given.
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "config/environment.h"

namespace penstock::cluster {

// As they stand on the command line; absent = not given. Names and meanings are torchrun's.
struct ElasticFlags {
  std::optional<std::string> nnodes = {};          // "4" or "1:4"
  std::optional<std::string> nproc_per_node = {};
  std::optional<std::string> node_rank = {};
  std::optional<std::string> rdzv_endpoint = {};   // "host", "host:port"
  std::optional<std::string> rdzv_id = {};
  std::optional<std::string> rdzv_conf = {};       // "last_call_timeout=5,join_timeout=60"
  std::optional<std::string> max_restarts = {};
};

struct ElasticSettings {
  int min_nodes = 1;
  int max_nodes = 1;
  int nproc_per_node = 0;  // 0 = not given
  int node_rank = 0;
  int max_restarts = 0;
  std::string host = "127.0.0.1";  // of the rendezvous, as this machine reaches it: the machine of node rank 0
  int port = 29400;                // 0 = any free one (one machine only)
  std::string job = "none";
  milliseconds join_timeout = seconds(600);
  milliseconds last_call = seconds(30);
  milliseconds dead_after = seconds(15);  // keep_alive_interval × keep_alive_max_attempt
};

// nullopt: no nnodes, so this is no job of several machines. Variables: PET_ and the flag's name in capitals; in their absence PET_MASTER_ADDR and
// PET_MASTER_PORT for the endpoint, SLURM_NODEID or JOB_COMPLETION_INDEX for the node rank. Inside a rank of torchrun variables do not count.
// Errors: kInvalidArgument naming the flag or the variable: no number, out of range, an option that needs --nnodes, several machines without an
// endpoint or a node rank, --nnodes inside torchrun.
[[nodiscard]] Result<std::optional<ElasticSettings>> elastic_settings(const ElasticFlags& flags, const config::Environment& environment);

}  // namespace penstock::cluster
