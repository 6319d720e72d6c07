#pragma once
// KServe's protocols over HTTP: version 2 (Open Inference) under /v2, version 1 under /v1.
#include <vector>

#include "frontend/model_registry.h"
#include "rpc/http_router.h"

namespace penstock::rpc {

// Predictions of models of bytes go to the handler as they come, and its answers back: `torchscript` speaks both protocols (tensor_request.h).
// For `llm`, version 2 takes one BYTES tensor of one item, version 1 one instance: a prompt or an object of sampling options.
// The registry must outlive the routes.
[[nodiscard]] std::vector<HttpRoute> open_inference_routes(const frontend::ModelRegistry& registry, size_t max_response_bytes);

}  // namespace penstock::rpc
