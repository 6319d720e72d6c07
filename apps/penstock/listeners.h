#pragma once
// How the front door's listeners are protected, by its configuration.
#include <memory>
#include <optional>

#include "config/server_config.h"
#include "frontend/access_keys.h"
#include "rpc/grpc_agents.h"
#include "rpc/grpc_server.h"
#include "rpc/http_server.h"
#include "rpc/tls_files.h"

namespace penstock {

// Null: nobody is asked for a key. `by_default`: whether they are, if the configuration does not say.
[[nodiscard]] std::unique_ptr<frontend::AccessKeys> make_access_keys(const config::ServerConfig& config, bool by_default);

// Absent: nothing speaks TLS. Throws Error naming the key and the file that is wrong.
[[nodiscard]] std::optional<rpc::TlsFiles> read_tls(const config::ServerConfig& config);

// One warning that names what other machines reach without a key and without a certificate, if there is any.
void warn_of_open_doors(const config::ServerConfig& config, bool asks_for_keys);

// Limits and protection; the address is the caller's to add.
[[nodiscard]] rpc::GrpcServerOptions grpc_options(const config::ServerConfig& config, frontend::AccessKeys* access_keys,
                                                  const std::optional<rpc::TlsFiles>& tls);
[[nodiscard]] rpc::HttpServerOptions http_options(const config::ServerConfig& config, frontend::AccessKeys* access_keys,
                                                  const std::optional<rpc::TlsFiles>& tls);

// REQUIRES: agent_address is given. Throws Error: the token's file is no good.
[[nodiscard]] rpc::AgentServerOptions agent_options(const config::ServerConfig& config, const std::optional<rpc::TlsFiles>& tls);

}  // namespace penstock
