#pragma once
// The metrics listener's route: GET /metrics?name[]=A&name[]=B.
#include <functional>
#include <string>
#include <vector>

#include "rpc/http_router.h"

namespace penstock::rpc {

// `render`: Prometheus text of these metrics, empty = all; called from any thread, must not block.
[[nodiscard]] std::vector<HttpRoute> metrics_routes(std::function<std::string(const std::vector<std::string>& names)> render);

}  // namespace penstock::rpc
