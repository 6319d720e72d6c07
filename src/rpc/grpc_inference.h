#pragma once
// TorchServe's InferenceAPIsService: translation only. Internal to rpc/: the types of gRPC are declared, not included.
#include <memory>

#include "frontend/model_registry.h"
#include "frontend/request_watcher.h"

namespace grpc {
class Service;
}

namespace penstock::rpc {

// Ping, Predictions, StreamPredictions, StreamPredictions2. The registry and the watcher (null: nobody is told) must outlive the service.
[[nodiscard]] std::unique_ptr<grpc::Service> make_inference_service(const frontend::ModelRegistry& registry, size_t max_waiting_messages,
                                                                    size_t max_response_bytes, frontend::RequestWatcher* watcher);

}  // namespace penstock::rpc
