#pragma once
// What a gRPC call says of its job besides the request. Internal to rpc/: the types of gRPC are declared, not included.
#include "base/error.h"
#include "frontend/job_queue.h"

namespace grpc {
class CallbackServerContext;
}

namespace penstock::rpc {

// Fills in what the call says. Priority: metadata x-priority (low, normal, high). Client: the name in its certificate, else the address that it calls from, without the port.
// Deadline: the call's own. Errors: kInvalidArgument for another priority.
[[nodiscard]] Result<frontend::JobOptions> job_options(const grpc::CallbackServerContext& context, frontend::JobOptions options);

// "ipv4:10.0.0.1:5000" without the port.
[[nodiscard]] std::string client_address(std::string_view peer);

}  // namespace penstock::rpc
