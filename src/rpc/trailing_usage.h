#pragma once
// How a generation ended, as trailing metadata: TorchServe's messages have no field for it, and clients that do not know it lose nothing.
#include <optional>

#include "frontend/worker_client.h"

namespace grpc {
class CallbackServerContext;
class ClientContext;
}  // namespace grpc

namespace penstock::rpc {

// REQUIRES: called before Finish, by the thread that calls it.
void add_trailing_usage(grpc::CallbackServerContext& context, const frontend::FinishedInfo& info);
// nullopt: the server did not say. REQUIRES: the call has ended.
[[nodiscard]] std::optional<frontend::FinishedInfo> read_trailing_usage(const grpc::ClientContext& context);

}  // namespace penstock::rpc
