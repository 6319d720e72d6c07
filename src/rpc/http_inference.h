#pragma once
// TorchServe's inference routes over HTTP: ping and predictions.
#include <vector>

#include "frontend/model_registry.h"
#include "rpc/http_router.h"

namespace penstock::rpc {

// The registry must outlive the routes. `max_response_bytes`: of a text that is sent in one piece.
// `text_routes` are added; what stands behind the version of a model that generates text is answered by them, of any other by its handler.
[[nodiscard]] std::vector<HttpRoute> inference_routes(const frontend::ModelRegistry& registry, size_t max_response_bytes,
                                                      std::vector<HttpRoute> text_routes);

}  // namespace penstock::rpc
