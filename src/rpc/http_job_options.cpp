#include "rpc/http_job_options.h"

#include "handler/request.h"

namespace penstock::rpc {

Result<frontend::JobOptions> job_options(const HttpRequest& http) {
  frontend::JobOptions options{.client = http.client, .protocol = frontend::Protocol::kHttp, .request_id = http.id, .trace = http.trace};
  const std::string* given = handler::find_header(http.headers, "x-priority");
  if (!given) return options;
  auto priority = frontend::parse_priority(*given);
  if (!priority) return priority.error();
  options.priority = *priority;
  return options;
}

}  // namespace penstock::rpc
