#pragma once
// The rendezvous of an elastic training job over the network: node 0 holds it, the agents of all machines report to it (proto/rendezvous.proto).
// Not authenticated, as the ranks' own connections are not: for networks whose machines trust each other.
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "cluster/rendezvous.h"

namespace penstock::rpc {

// Threads: every method from any thread; reports are answered on gRPC's threads.
class RendezvousServer {
 public:
  // Listens at once, on all interfaces, or on loopback only. port 0 = a free one. kUnavailable: the port is taken.
  [[nodiscard]] static Result<std::unique_ptr<RendezvousServer>> start(const cluster::RendezvousOptions& options, bool loopback_only, int port);
  ~RendezvousServer();
  RendezvousServer(const RendezvousServer&) = delete;
  RendezvousServer& operator=(const RendezvousServer&) = delete;

  [[nodiscard]] int port() const;
  // The job has ended, and every agent that is still there knows it.
  [[nodiscard]] bool all_told() const;

 private:
  class Impl;
  explicit RendezvousServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Threads: one.
class RendezvousClient {
 public:
  RendezvousClient(const std::string& host, int port);
  ~RendezvousClient();
  RendezvousClient(const RendezvousClient&) = delete;
  RendezvousClient& operator=(const RendezvousClient&) = delete;

  // kUnavailable, kDeadlineExceeded: nobody answers there now. Other errors refuse this agent for good.
  [[nodiscard]] Result<cluster::AgentOrder> report(const cluster::AgentReport& report, Deadline deadline);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::rpc
