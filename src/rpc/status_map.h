#pragma once
// Our error codes and gRPC's, both ways.
#include "base/error.h"

namespace grpc {
class Status;
}

namespace penstock::rpc {

[[nodiscard]] grpc::Status to_status(const Error& error);

// REQUIRES: !status.ok(). Codes that we have no name for become kInternal; the message is kept.
[[nodiscard]] Error to_error(const grpc::Status& status);

}  // namespace penstock::rpc
