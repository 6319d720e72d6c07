#pragma once
// What a job needs of an HTTP request. Internal to rpc/.
#include <cstddef>
#include <memory>
#include <optional>

#include "base/error.h"
#include "frontend/served_model.h"
#include "rpc/http_message.h"

namespace penstock::rpc {

struct HttpPrediction {
  frontend::Payload payload;
  std::optional<frontend::JobOptions::Sequence> sequence;
  std::shared_ptr<frontend::RequestObserver> observer;  // answers into the reply
};

struct HttpPredictionOptions {
  size_t max_response_bytes = 0;
  bool query_is_input = false;  // each query parameter is a part for the handler, as on SageMaker's routes
};

// A model of text generation takes the field "data", "prompt" or "body" of the body, or the body as it is. Others get the route's {url_path}, what
// stands behind model and version, as a header. Errors: kInvalidArgument for what the model cannot take.
[[nodiscard]] Result<HttpPrediction> make_http_prediction(const HttpRequest& http, const frontend::ServedModel& model,
                                                          const std::shared_ptr<HttpReply>& reply, const HttpPredictionOptions& options);

}  // namespace penstock::rpc
