#pragma once
// Connections of clients to a front door. Internal to rpc/: the types of gRPC are declared, not included.
#include <memory>
#include <string>

#include "base/clock.h"

namespace grpc {
class Channel;
}

namespace penstock::rpc {

// A server, and what it asks for.
struct ServerAddress {
  std::string address;      // HOST:PORT
  std::string key;          // the inference key; empty = none is sent
  std::string authorities;  // PEM: TLS, with a server that these have signed; empty = plain text
};

// A connection that is shared with no other channel. Connects when it is first used.
[[nodiscard]] std::shared_ptr<grpc::Channel> make_channel(const ServerAddress& server);
// Blocks until it is connected. false: refused, or not by the deadline.
[[nodiscard]] bool connect(grpc::Channel& channel, Deadline deadline);

}  // namespace penstock::rpc
