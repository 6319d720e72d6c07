#pragma once
// OpenAPI of one model.
#include <string>
#include <vector>

#include "frontend/served_model.h"
#include "rpc/http_router.h"

namespace penstock::rpc {

// The routes through which one model is asked, taken from the table of all.
class ModelApi {
 public:
  // Of `routes`, those whose path names a model. Their handlers are not kept.
  explicit ModelApi(const std::vector<HttpRoute>& routes);

  // OpenAPI 3.0.1 as JSON, with the model's name and version in the paths: how this version's predictions are asked for.
  [[nodiscard]] std::string openapi(const frontend::ServedModel& model) const;

 private:
  std::vector<HttpRoute> routes_;
};

}  // namespace penstock::rpc
