#pragma once
// TorchServe's management routes over HTTP: models.
#include <vector>

#include "frontend/management.h"
#include "frontend/model_registry.h"
#include "rpc/call_pool.h"
#include "rpc/http_router.h"
#include "rpc/model_openapi.h"

namespace penstock::rpc {

// The calls run on `pool`, for they wait. `api`: how a model of `registry` is asked, which OPTIONS describes. All but `api` must outlive the routes.
[[nodiscard]] std::vector<HttpRoute> management_routes(frontend::Management& management, CallPool& pool, const frontend::ModelRegistry& registry,
                                                       ModelApi api);

}  // namespace penstock::rpc
