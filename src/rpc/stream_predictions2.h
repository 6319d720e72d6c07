#pragma once
// The reactor of StreamPredictions2. Internal to rpc/: the types of gRPC are declared, not included.
#include <cstddef>

namespace grpc {
class CallbackServerContext;
template <class Request, class Response>
class ServerBidiReactor;
}  // namespace grpc

namespace org::pytorch::serve::grpc::inference {
class PredictionsRequest;
class PredictionResponse;
}  // namespace org::pytorch::serve::grpc::inference

namespace penstock::frontend {
class ModelRegistry;
}

namespace penstock::rpc {

class CallRecord;

// Serves one stream of requests, to any models. Requests of one sequence_id run one after another, others at once. Each reply bears its request's
// sequence_id; a request's last reply has a status: OK, or its error with google.rpc.ErrorInfo (error_details.h). An error ends a request, not the
// stream. When the client has sent its last request, the stream ends with the last reply. The reactor deletes itself after its call.
[[nodiscard]] grpc::ServerBidiReactor<org::pytorch::serve::grpc::inference::PredictionsRequest,
                                      org::pytorch::serve::grpc::inference::PredictionResponse>*
start_stream_predictions2(const grpc::CallbackServerContext& context, const frontend::ModelRegistry& registry, size_t max_waiting_messages,
                          CallRecord record);

}  // namespace penstock::rpc
