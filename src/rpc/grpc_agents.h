#pragma once
// The port where `penstock agent` of other machines joins the front door, and the agent's end of it (proto/agents.proto).
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "base/clock.h"
#include "base/error.h"
#include "cluster/agent_messages.h"
#include "frontend/agent_pool.h"
#include "rpc/tls_files.h"

namespace penstock::rpc {

struct AgentServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;                    // 0 = any free one
  std::string token;               // "authorization: Bearer TOKEN"; empty: none is asked for
  int failures_per_minute = 60;    // wrong tokens of one address, before it is not listened to; 0 = any number
  std::optional<TlsFiles> tls;     // absent: plain text. With client authorities, agents need a certificate of these
};

// Threads:  gRPC's, which call the pool.
// Lifetime: the pool outlives it. The destructor ends every agent's connection, and with it the ranks there.
// Faults:   an agent whose machine is silent for 5 s is gone.
class AgentServer {
 public:
  // kUnavailable: it cannot listen there.
  [[nodiscard]] static Result<std::unique_ptr<AgentServer>> start(const AgentServerOptions& options, frontend::AgentPool& pool);
  ~AgentServer();
  AgentServer(const AgentServer&) = delete;
  AgentServer& operator=(const AgentServer&) = delete;

  // "127.0.0.1:7072", with the port that was taken when 0 was asked for.
  [[nodiscard]] const std::string& address() const;

 private:
  class Impl;
  explicit AgentServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct AgentClientOptions {
  std::string address;             // HOST:PORT of the front door's agents' port
  std::string token;
  std::string authorities;         // PEM: whose certificate the front door must show; empty: plain text
  std::string certificates;        // PEM, with their key: shown to the front door; empty: none
  std::string private_key;
};

struct AgentWelcome {};
using AgentOrder = std::variant<AgentWelcome, cluster::StartRanks, cluster::StopRanks>;

// One connection of an agent. It connects by itself and says its hello.
//
// Threads: next() and report() from one; one of its own reads.
// Blocks:  report(), while the front door does not read, which a lost connection ends within 5 s.
class AgentClient {
 public:
  AgentClient(const AgentClientOptions& options, const cluster::AgentHello& hello);
  ~AgentClient();
  AgentClient(const AgentClient&) = delete;
  AgentClient& operator=(const AgentClient&) = delete;

  // The next order; nullopt: none by the deadline. Errors: the connection is lost (kUnavailable, kDeadlineExceeded, kCancelled), or refused (any other).
  [[nodiscard]] Result<std::optional<AgentOrder>> next(Deadline deadline);
  // Dropped when the connection is lost.
  void report(const cluster::RanksReport& report);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::rpc
