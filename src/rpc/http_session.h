#pragma once
// One connection of the HTTP server. Internal to rpc/: the types of Boost.Asio are declared, not included.
#include <atomic>
#include <memory>
#include <utility>

#include "rpc/http_router.h"
#include "rpc/http_server.h"

namespace boost::asio {
class io_context;
namespace ssl {
class context;
}
}  // namespace boost::asio

namespace penstock::rpc {

// What all connections of a server share.
struct HttpShared {
  HttpShared(const HttpServerOptions& server_options, HttpRouter server_router, std::shared_ptr<boost::asio::ssl::context> tls_context)
      : options(server_options), router(std::move(server_router)), tls(std::move(tls_context)) {}
  const HttpServerOptions options;
  const HttpRouter router;
  const std::shared_ptr<boost::asio::ssl::context> tls;  // null: plain HTTP
  std::atomic<int> connections{0};
  std::atomic<int> busy{0};  // requests whose answer has not ended
};

// Takes an accepted socket: reads requests and has them answered until the client or an error ends it. `full`: answers 503 and closes.
// It runs on the context's threads and keeps itself alive.
void start_http_session(boost::asio::io_context& context, int socket, std::shared_ptr<HttpShared> shared, bool full);

}  // namespace penstock::rpc
