#pragma once
// What the front door and `penstock agent` on another machine tell each other. Plain data; rpc/grpc_agents.h carries it.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "cluster/host_ledger.h"
#include "cluster/process.h"

namespace penstock::cluster {

// Changes with the messages: both ends must speak the same.
inline constexpr int kAgentProtocol = 1;

// An agent's first word.
struct AgentHello {
  int protocol = kAgentProtocol;
  HostOffer offer;
  std::string front_door;            // its host as the agent calls it: ranks there find rank 0 under that name
};

// To an agent: this machine's part of a worker group.
struct StartRanks {
  uint64_t id = 0;                   // of this part, in everything that follows
  std::string group;                 // "MODEL-GROUP", for logs
  std::vector<std::string> arguments;  // of penstock-worker
  std::string model_folder;          // must be there
  std::string hidden_variables;      // a regular expression of names that the ranks do not inherit
  int first_rank = 0;
  int num_ranks = 0;
  int world_size = 0;
  std::string master_addr;
  int master_port = 0;
  std::string job;
  int omp_threads = 1;
  std::vector<std::string> devices;  // empty: none is shown to them
  std::vector<std::string> cores;    // omp_threads of them for each rank; empty: any
};

// To an agent: SIGTERM, and SIGKILL after the grace.
struct StopRanks {
  uint64_t id = 0;
  milliseconds grace{0};
};

// To the front door.
struct RanksReport {
  enum class Kind {
    kRankEnded,   // by itself, or killed
    kNotStarted,  // none of them: `code` and `text` say why
    kAllEnded,    // the last word of this id
  };
  uint64_t id = 0;
  Kind kind = Kind::kAllEnded;
  int rank = 0;
  ExitStatus status;
  Code code = Code::kInternal;
  std::string text;                  // kRankEnded: the last lines of its log
};

}  // namespace penstock::cluster
