#pragma once
// Who may call a gRPC port. Internal to rpc/: the types of gRPC are declared, not included.
#include <memory>
#include <optional>

#include "frontend/access_keys.h"
#include "rpc/tls_files.h"

namespace grpc {
class ServerCredentials;
}

namespace penstock::rpc {

// Asks every call for one of `keys`, also calls of health, of reflection, and of methods that do not exist, before any code of a service sees
// it: metadata "authorization: Bearer KEY", which is taken out. PERMISSION_DENIED, or RESOURCE_EXHAUSTED for a connection that failed too often
// (gRPC does not tell the address here). Null: every call is let in. `access_keys` must outlive the server.
// With files, connections are TLS; with client authorities in them, clients without a certificate of these are not let in.
[[nodiscard]] std::shared_ptr<grpc::ServerCredentials> make_server_credentials(frontend::AccessKeys* access_keys, frontend::KeySet keys,
                                                                               std::optional<TlsFiles> tls);

}  // namespace penstock::rpc
