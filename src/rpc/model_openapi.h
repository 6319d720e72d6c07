#pragma once
// OpenAPI of one model. Internal to rpc/.
#include <string>

#include "frontend/served_model.h"

namespace penstock::rpc {

// OpenAPI 3.0.1 as JSON: how this version's predictions are asked for.
[[nodiscard]] std::string model_openapi(const frontend::ServedModel& model);

}  // namespace penstock::rpc
