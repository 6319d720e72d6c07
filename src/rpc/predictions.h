#pragma once
// The reactor of Predictions. Internal to rpc/: the types of gRPC are declared, not included.
#include <cstddef>

#include "rpc/call_record.h"

namespace grpc {
class CallbackServerContext;
class ServerUnaryReactor;
}  // namespace grpc

namespace org::pytorch::serve::grpc::inference {
class PredictionsRequest;
class PredictionResponse;
}  // namespace org::pytorch::serve::grpc::inference

namespace penstock::frontend {
class ModelRegistry;
}

namespace penstock::rpc {

// Starts one generation whose whole text goes into `response`. Trailing metadata as in StreamPredictions.
// The reactor deletes itself after its call.
[[nodiscard]] grpc::ServerUnaryReactor* start_predictions(grpc::CallbackServerContext& context,
                                                          const org::pytorch::serve::grpc::inference::PredictionsRequest& message,
                                                          org::pytorch::serve::grpc::inference::PredictionResponse& response,
                                                          const frontend::ModelRegistry& registry, size_t max_response_bytes, CallRecord record);

}  // namespace penstock::rpc
