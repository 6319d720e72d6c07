#pragma once
// The reactor of StreamPredictions. Internal to rpc/: the types of gRPC are declared, not included.
#include <cstddef>

#include "rpc/call_record.h"

namespace grpc {
class CallbackServerContext;
template <class Response>
class ServerWriteReactor;
}  // namespace grpc

namespace org::pytorch::serve::grpc::inference {
class PredictionsRequest;
class PredictionResponse;
}  // namespace org::pytorch::serve::grpc::inference

namespace penstock::frontend {
class ModelRegistry;
}

namespace penstock::rpc {

// Starts one streamed generation: a message for each piece of text, then OK with trailing metadata
// penstock-finish-reason, penstock-prompt-tokens and penstock-completion-tokens. The reactor deletes itself after its call.
[[nodiscard]] grpc::ServerWriteReactor<org::pytorch::serve::grpc::inference::PredictionResponse>* start_stream_predictions(
    grpc::CallbackServerContext& context, const org::pytorch::serve::grpc::inference::PredictionsRequest& message,
    const frontend::ModelRegistry& registry, size_t max_waiting_messages, CallRecord record);

}  // namespace penstock::rpc
