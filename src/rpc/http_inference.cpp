#include "rpc/http_inference.h"

#include <utility>

#include "frontend/job.h"
#include "rpc/http_answers.h"
#include "rpc/http_job_options.h"
#include "text/generation_request.h"
#include "text/json_input.h"

namespace penstock::rpc {
namespace {

// Takes "stream" out of a JSON body: how an answer is sent is not the generation's business.
Result<bool> take_stream_flag(std::string& body) {
  const size_t first = body.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || body[first] != '{' || body.find("\"stream\"") == std::string::npos) return false;
  auto json = text::parse_json(body, "the request", Code::kInvalidArgument);
  if (!json) return json.error();
  const auto found = json->find("stream");
  if (found == json->end()) return false;
  if (!found->is_boolean()) return error(Code::kInvalidArgument, "stream: expected true or false, found {}", text::shown(*found));
  const bool streams = *found;
  json->erase(found);
  body = json->dump();
  return streams;
}

// What a job needs of an HTTP request.
struct Prediction {
  frontend::Payload payload;
  std::shared_ptr<frontend::RequestObserver> observer;
};

Result<Prediction> text_prediction(const HttpRequest& http, const std::shared_ptr<HttpReply>& reply, size_t max_response_bytes) {
  std::string body = http.body;
  auto streams = take_stream_flag(body);
  if (!streams) return streams.error();
  auto request = text::parse_generation_request(body);
  if (!request) return request.error();
  return Prediction{std::move(*request), make_text_answer(reply, *streams, max_response_bytes)};
}

Result<Prediction> bytes_prediction(const HttpRequest& http, const std::shared_ptr<HttpReply>& reply, size_t max_response_bytes) {
  const std::string* type = handler::find_header(http.headers, "Content-Type");
  handler::Request request{http.id, http.headers, {{"body", type ? *type : "", http.body}}};
  if (auto bad = check_request(request)) return *bad;
  return Prediction{std::move(request), make_bytes_answer(reply, max_response_bytes)};
}

// Why there is no job; nullopt: there is one.
std::optional<Error> start_prediction(const HttpRequest& http, const std::shared_ptr<HttpReply>& reply,
                                      const frontend::ModelRegistry& registry, size_t max_response_bytes) {
  const auto version = http.parameters.find("model_version");
  auto model = registry.find(http.parameters.at("model_name"), version == http.parameters.end() ? "" : version->second);
  if (!model) return model.error();
  const bool is_text = (*model)->spec().handler_kind == frontend::HandlerKind::kText;
  auto prediction = is_text ? text_prediction(http, reply, max_response_bytes) : bytes_prediction(http, reply, max_response_bytes);
  if (!prediction) return prediction.error();
  auto options = job_options(http);
  if (!options) return options.error();
  auto job = (*model)->jobs().submit(std::move(prediction->payload), std::move(*options), std::move(prediction->observer));
  if (!job) return job.error();
  reply->when_gone([model = *model, job = *job] { model->jobs().cancel(*job); });
  return std::nullopt;
}

}  // namespace

std::vector<HttpRoute> inference_routes(const frontend::ModelRegistry& registry, size_t max_response_bytes) {
  const auto ping = [&registry](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    const bool healthy = registry.all_healthy();
    reply->send({healthy ? 200 : 500, "application/json", fmt::format("{{\n  \"status\": \"{}\"\n}}\n", healthy ? "Healthy" : "Unhealthy"), {}});
  };
  const auto predict = [&registry, max_response_bytes](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    if (const auto refused = start_prediction(request, reply, registry, max_response_bytes)) reply->send(error_response(*refused));
  };
  const auto no_workflow = [](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    reply->send(error_response(501, "NotImplementedException", "workflows are not supported"));
  };
  const char* text = "Text of a prompt; chunked with \"stream\": true";
  return {
      {"*", "/ping", "Health of the server", {}, ping},
      {"*", "/predictions/{model_name}", text, {}, predict},
      {"*", "/predictions/{model_name}/{model_version}", text, {}, predict},
      {"POST", "/models/{model_name}/invoke", text, {}, predict},
      {"POST", "/wfpredict/{workflow_name}", "Not implemented", {}, no_workflow},
  };
}

}  // namespace penstock::rpc
