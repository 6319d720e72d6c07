#pragma once
// HTTP/1.1 in front of a router: connections, limits, time-outs, chunked answers.
#include <memory>
#include <optional>
#include <string>

#include "base/clock.h"
#include "base/error.h"
#include "config/http_address.h"
#include "frontend/access_keys.h"
#include "rpc/http_cors.h"
#include "frontend/request_watcher.h"
#include "rpc/http_router.h"
#include "rpc/tls_files.h"

namespace penstock::rpc {

struct HttpServerOptions {
  config::HttpAddress address{"127.0.0.1", 8080};
  const char* address_key = "inference_address";  // of config.properties, for messages
  std::optional<TlsFiles> tls;           // with address.tls, which requires them
  size_t max_header_bytes = 16 << 10;    // more is 431
  size_t max_request_bytes = 6553500;    // of a body; more is 413
  int max_connections = 10000;           // one more is answered 503 and closed
  size_t max_waiting_chunks = 1024;      // of one answer; a client that lags further loses it
  milliseconds header_timeout{30000};    // for a whole header, and for an idle connection
  milliseconds body_timeout{60000};      // for a whole body
  milliseconds write_timeout{60000};     // for one write
  CorsRules cors;
  frontend::AccessKeys* access_keys = nullptr;  // null: every route is open; must outlive the server
  frontend::RequestWatcher* watcher = nullptr;  // told of every answered request; null: nobody; must outlive the server
};

// Threads:  every method from any thread; two threads of its own run all connections and call the router's handlers.
// Lifetime: outlives everyone who holds an HttpReply of it.
// Guards:   with access keys, a request is let in by its header, before its body is read and before anything tells whether its path exists.
// Refuses:  what the parser cannot read, and every request whose end two parsers might see in different places: a length given twice or
//           beside a transfer encoding, any encoding but "chunked", HTTP/2 prefaces, several Host lines. Such a connection is closed.
class HttpServer {
 public:
  // Listens at once. kUnavailable naming address and reason; kInvalidArgument for TLS files that OpenSSL refuses, such as a key that is too short.
  [[nodiscard]] static Result<std::unique_ptr<HttpServer>> start(const HttpServerOptions& options, HttpRouter router);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  // "http://127.0.0.1:8080", "unix:/run/http.sock", with the port that was taken when 0 was asked for.
  [[nodiscard]] const std::string& address() const;
  // Takes no new connections, lets running answers end until the deadline, then closes. Calling twice is harmless.
  void shutdown(Deadline deadline);

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace penstock::rpc
