#pragma once
// One connection of the HTTP server. Internal to rpc/: the types of Boost.Asio are declared, not included.
#include <atomic>
#include <memory>
#include <utility>

#include "rpc/http_router.h"
#include "rpc/http_server.h"

namespace boost::asio {
class io_context;
}

namespace penstock::rpc {

// What all connections of a server share.
struct HttpShared {
  HttpShared(const HttpServerOptions& server_options, HttpRouter server_router) : options(server_options), router(std::move(server_router)) {}
  const HttpServerOptions options;
  const HttpRouter router;
  std::atomic<int> connections{0};
  std::atomic<int> busy{0};  // requests whose answer has not ended
};

// Takes an accepted socket: reads requests and has them answered until the client or an error ends it. `full`: answers 503 and closes.
// It runs on the context's threads and keeps itself alive.
void start_http_session(boost::asio::io_context& context, int socket, std::shared_ptr<HttpShared> shared, bool full);

}  // namespace penstock::rpc
