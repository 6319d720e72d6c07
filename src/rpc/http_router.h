#pragma once
// The table of routes: which handler answers a request, and the OpenAPI description, made of the same table.
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/access_keys.h"
#include "rpc/http_message.h"

namespace penstock::rpc {

struct HttpRoute {
  std::string method;    // "GET"; "*" = any
  std::string pattern;   // "/models/{model_name}/{model_version}": a part in braces stands for one part of the path, decoded;
                         // "{model_name}:predict" for one that ends so; a last one "{name...}" for one or more parts
  std::string summary;   // for the description
  std::vector<std::string> query;  // names of the parameters that it reads
  // Called from any thread; must not block.
  std::function<void(const HttpRequest&, const std::shared_ptr<HttpReply>&)> handle;
  frontend::KeySet keys = frontend::kManagementKey;  // that open it, where keys are asked for: guarded() says another for a whole table
  HttpResponse (*refuse)(const Error& refused) = &token_refusal;  // what who has none of them is told
  bool takes_input = false;        // its body is what the model's handler takes: for descriptions
};

// In whose words a router refuses what lies below a prefix.
struct HttpRefusals {
  std::string prefix;  // "/v1/"
  // 404: no route has the path; 405: none of those that have it takes the method; 413: the body is too long; 400: it is no request. `message`: why.
  HttpResponse (*unknown)(int status, std::string_view message) = nullptr;
  HttpResponse (*locked)(const Error& refused) = &token_refusal;  // as HttpRoute::refuse, of what no route has
};

// The same routes, opened by these keys.
[[nodiscard]] std::vector<HttpRoute> guarded(std::vector<HttpRoute> routes, frontend::KeySet keys);

// Of several routes that fit a path, those that begin with a parameter, such as "/{model_name}/predict", come last, and of the others the first.
//
// Threads: constant after construction; handle() from any thread.
class HttpRouter {
 public:
  // Adds /api-description and OPTIONS /, which answer openapi() and take every key of the routes but the API key.
  // `refusals`: of paths below none of them, TorchServe's words.
  HttpRouter(std::string title, std::vector<HttpRoute> routes, std::vector<HttpRefusals> refusals = {});

  // Answers 404 for a path that no route has, 405 with the header Allow for a method that its routes do not have, 400 for a broken escape.
  void handle(HttpRequest request, const std::shared_ptr<HttpReply>& reply) const;

  // The answer to what no handler gets, in the words of what lies at `path`. `type`: TorchServe's name of it.
  [[nodiscard]] HttpResponse refusal(int status, const char* type, const std::string& path, const std::string& why) const;

  struct Lock {
    frontend::KeySet keys = 0;  // that open it
    HttpResponse (*refuse)(const Error& refused) = &token_refusal;
  };
  // What guards what such a request reaches; of a path or method that no route has, the keys of all that it might have meant.
  [[nodiscard]] Lock lock(const std::string& method, const std::string& path) const;

  [[nodiscard]] const std::vector<HttpRoute>& routes() const { return routes_; }
  // OpenAPI 3.0.1 as JSON.
  [[nodiscard]] std::string openapi() const;

 private:
  // What handle() and lock() go by, so that they cannot disagree.
  struct Found {
    const HttpRoute* route = nullptr;
    bool path_known = false;
    bool broken = false;              // a % escape
    Lock lock;
    std::map<std::string, std::string> parameters;
    std::set<std::string> methods;    // that the path's routes take, while none takes this one
  };
  [[nodiscard]] Found find(const std::string& method, const std::string& path) const;
  [[nodiscard]] const HttpRefusals* refusals_of(const std::string& path) const;
  [[nodiscard]] HttpResponse unknown(const HttpRequest& request, const Found& found) const;

  const std::string title_;
  std::vector<HttpRoute> routes_;
  std::vector<HttpRefusals> refusals_;
  frontend::KeySet all_keys_ = 0;
};

}  // namespace penstock::rpc
