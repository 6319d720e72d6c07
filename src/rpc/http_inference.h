#pragma once
// TorchServe's inference routes over HTTP: ping and predictions.
#include <vector>

#include "frontend/model_registry.h"
#include "rpc/http_router.h"

namespace penstock::rpc {

// The registry must outlive the routes. `max_response_bytes`: of a text that is sent in one piece.
[[nodiscard]] std::vector<HttpRoute> inference_routes(const frontend::ModelRegistry& registry, size_t max_response_bytes);

}  // namespace penstock::rpc
