#pragma once
// The table of routes: which handler answers a request, and the OpenAPI description, made of the same table.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "rpc/http_message.h"

namespace penstock::rpc {

struct HttpRoute {
  std::string method;    // "GET"; "*" = any
  std::string pattern;   // "/models/{model_name}/{model_version}": a part in braces stands for one part of the path, decoded
  std::string summary;   // for the description
  std::vector<std::string> query;  // names of the parameters that it reads
  // Called from any thread; must not block.
  std::function<void(const HttpRequest&, const std::shared_ptr<HttpReply>&)> handle;
};

// Threads: constant after construction; handle() from any thread.
class HttpRouter {
 public:
  // Adds GET /api-description and OPTIONS /, which answer openapi().
  HttpRouter(std::string title, std::vector<HttpRoute> routes);

  // Answers 404 for a path that no route has, 405 for a method that its routes do not have, 400 for a broken escape.
  void handle(HttpRequest request, const std::shared_ptr<HttpReply>& reply) const;

  [[nodiscard]] const std::vector<HttpRoute>& routes() const { return routes_; }
  // OpenAPI 3.0.1 as JSON.
  [[nodiscard]] std::string openapi() const;

 private:
  const std::string title_;
  std::vector<HttpRoute> routes_;
};

}  // namespace penstock::rpc
