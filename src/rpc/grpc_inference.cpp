#include "rpc/grpc_inference.h"

#include <grpcpp/grpcpp.h>

#include "rpc/call_record.h"
#include "rpc/predictions.h"
#include "rpc/stream_predictions.h"
#include "rpc/stream_predictions2.h"
#include "torchserve/inference.grpc.pb.h"

namespace penstock::rpc {
namespace {

namespace pb = org::pytorch::serve::grpc::inference;

class InferenceService final : public pb::InferenceAPIsService::CallbackService {
 public:
  InferenceService(const frontend::ModelRegistry& registry, size_t max_waiting_messages, size_t max_response_bytes,
                   frontend::RequestWatcher* watcher)
      : registry_(registry), max_waiting_messages_(max_waiting_messages), max_response_bytes_(max_response_bytes), watcher_(watcher) {}

  grpc::ServerUnaryReactor* Ping(grpc::CallbackServerContext* context, const google::protobuf::Empty*,
                                 pb::TorchServeHealthResponse* response) override {
    response->set_health(registry_.all_healthy() ? "{\n  \"status\": \"Healthy\"\n}\n" : "{\n  \"status\": \"Unhealthy\"\n}\n");
    auto* reactor = context->DefaultReactor();
    reactor->Finish(record(*context, "Ping").end(grpc::Status::OK));
    return reactor;
  }

  grpc::ServerUnaryReactor* Predictions(grpc::CallbackServerContext* context, const pb::PredictionsRequest* request,
                                        pb::PredictionResponse* response) override {
    return start_predictions(*context, *request, *response, registry_, max_response_bytes_, record(*context, "Predictions"));
  }

  grpc::ServerWriteReactor<pb::PredictionResponse>* StreamPredictions(grpc::CallbackServerContext* context,
                                                                      const pb::PredictionsRequest* request) override {
    return start_stream_predictions(*context, *request, registry_, max_waiting_messages_, record(*context, "StreamPredictions"));
  }

  grpc::ServerBidiReactor<pb::PredictionsRequest, pb::PredictionResponse>* StreamPredictions2(grpc::CallbackServerContext* context) override {
    return start_stream_predictions2(*context, registry_, max_waiting_messages_, record(*context, "StreamPredictions2"));
  }

 private:
  [[nodiscard]] CallRecord record(const grpc::CallbackServerContext& context, const char* method) const {
    return {context, watcher_, "org.pytorch.serve.grpc.inference.InferenceAPIsService", method};
  }

  const frontend::ModelRegistry& registry_;
  const size_t max_waiting_messages_;
  const size_t max_response_bytes_;
  frontend::RequestWatcher* const watcher_;
};

}  // namespace

std::unique_ptr<grpc::Service> make_inference_service(const frontend::ModelRegistry& registry, size_t max_waiting_messages,
                                                      size_t max_response_bytes, frontend::RequestWatcher* watcher) {
  return std::make_unique<InferenceService>(registry, max_waiting_messages, max_response_bytes, watcher);
}

}  // namespace penstock::rpc
