#pragma once
// Errors as google.rpc.Status, with details that programs can read. Internal to rpc/: the types of gRPC and protobuf are declared, not included.
#include "base/error.h"

namespace grpc {
class Status;
}
namespace google::rpc {
class Status;
}

namespace penstock::rpc {

// Whether the error came before any work was done, so that asking again is safe.
enum class Stage { kRefused, kBegun };

// Code, message, an ErrorInfo whose reason is the code's name ("NOT_FOUND"), and, for what is refused because too much waits or no worker is
// there, a RetryInfo.
[[nodiscard]] google::rpc::Status to_rpc_status(const Error& error, Stage stage);

// to_status() with those details.
[[nodiscard]] grpc::Status to_refusal(const Error& error);

}  // namespace penstock::rpc
