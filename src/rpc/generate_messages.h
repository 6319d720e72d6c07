#pragma once
// penstock.v1.Generate's messages and ours. Internal to rpc/: the types of protobuf are declared, not included.
#include <optional>

#include "base/error.h"
#include "frontend/worker_client.h"
#include "text/generation_request.h"

namespace penstock::v1 {
class GenerateRequest;
class GenerateResponse;
}  // namespace penstock::v1

namespace penstock::rpc {

// Errors: those of check_generation_request(); kInvalidArgument without a prompt, or naming a constraint that constraint_grammar() refuses.
[[nodiscard]] Result<text::GenerationRequest> from_proto(const v1::GenerateRequest& message);
// nullopt: the event says nothing.
[[nodiscard]] std::optional<v1::GenerateResponse> to_response(const frontend::WorkerEvent& event);

}  // namespace penstock::rpc
