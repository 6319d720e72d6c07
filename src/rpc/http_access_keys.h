#pragma once
// The route that makes new tokens.
#include <vector>

#include "frontend/access_keys.h"
#include "rpc/call_pool.h"
#include "rpc/http_router.h"

namespace penstock::rpc {

// /token?type=management or inference, opened by the API key: a new key, to be read in the key file. Both must outlive the routes.
[[nodiscard]] std::vector<HttpRoute> access_key_routes(frontend::AccessKeys& access_keys, CallPool& pool);

}  // namespace penstock::rpc
