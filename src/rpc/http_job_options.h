#pragma once
// What an HTTP request says of its job besides the payload. Internal to rpc/.
#include "frontend/job_options.h"
#include "rpc/http_message.h"

namespace penstock::rpc {

// Priority: header x-priority (low, normal, high). Client: the address that it comes from. Errors: kInvalidArgument for another priority.
[[nodiscard]] Result<frontend::JobOptions> job_options(const HttpRequest& http);

}  // namespace penstock::rpc
