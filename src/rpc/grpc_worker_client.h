#pragma once
// frontend::WorkerClient over gRPC on a unix socket (proto/worker.proto).
#include <filesystem>
#include <memory>

#include "frontend/worker_client.h"

namespace penstock::rpc {

// A client of the worker that listens, or will listen, on `socket`. Connects by itself; a lost connection ends its calls
// with kUnavailable at once.
[[nodiscard]] std::shared_ptr<frontend::WorkerClient> make_grpc_worker_client(const std::filesystem::path& socket);

}  // namespace penstock::rpc
