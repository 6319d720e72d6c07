#pragma once
// TorchServe's management routes over HTTP: models.
#include <vector>

#include "frontend/management.h"
#include "rpc/call_pool.h"
#include "rpc/http_router.h"

namespace penstock::rpc {

// The calls run on `pool`, for they wait. Both must outlive the routes.
[[nodiscard]] std::vector<HttpRoute> management_routes(frontend::Management& management, CallPool& pool);

}  // namespace penstock::rpc
