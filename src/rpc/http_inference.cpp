#include "rpc/http_inference.h"

#include <utility>

#include "frontend/job.h"
#include "rpc/http_job_options.h"
#include "rpc/http_open_inference.h"
#include "rpc/http_prediction.h"
#include "rpc/model_openapi.h"

namespace penstock::rpc {
namespace {

using Reply = std::shared_ptr<HttpReply>;
using frontend::ModelRegistry;

constexpr const char* kJson = "application/json";
constexpr const char* kModelPath = "/predictions/{model_name}";
constexpr const char* kVersionPath = "/predictions/{model_name}/{model_version}";

// What a route reaches, besides the model that its path names.
struct Route {
  bool query_is_input = false;
  bool model_in_query = false;
  bool explains = false;
};

Result<std::shared_ptr<frontend::ServedModel>> find_model(const HttpRequest& http, const ModelRegistry& registry, bool in_query) {
  const auto& names = in_query ? http.query : http.parameters;
  const auto name = names.find("model_name");
  const auto version = names.find("model_version");
  if (name != names.end()) return registry.find(name->second, version == names.end() ? "" : version->second);
  std::shared_ptr<frontend::ServedModel> only;  // of those that were loaded at the start
  for (const auto& model : registry.defaults()) {
    if (!model->spec().loaded_at_startup) continue;
    if (only) return Error(Code::kInvalidArgument, "model_name is missing: several models were loaded at the start, write /invocations?model_name=NAME");
    only = model;
  }
  if (!only) return Error(Code::kInvalidArgument, "model_name is missing, and no model was loaded at the start");
  return only;
}

// Why there is no job; nullopt: there is one.
std::optional<Error> start_prediction(const HttpRequest& http, const Reply& reply, const ModelRegistry& registry, const Route& route,
                                      size_t max_response_bytes) {
  auto found = find_model(http, registry, route.model_in_query);
  if (!found) return found.error();
  const auto model = *found;
  if (route.explains && model->spec().handler_kind != frontend::HandlerKind::kPython) {
    return error(Code::kUnimplemented, "model '{}': its handler gives no explanations; only Python handlers may", model->name());
  }
  auto prediction = make_http_prediction(http, *model, reply, {max_response_bytes, route.query_is_input});
  if (!prediction) return prediction.error();
  if (route.explains) {
    if (auto* request = std::get_if<handler::Request>(&prediction->payload)) request->headers.emplace_back("explain", "True");
  }
  auto options = job_options(http);
  if (!options) return options.error();
  options->sequence = std::move(prediction->sequence);
  auto job = model->jobs().submit(std::move(prediction->payload), std::move(*options), std::move(prediction->observer));
  if (!job) return job.error();
  reply->when_gone([model, job = *job] { model->jobs().cancel(*job); });
  return std::nullopt;
}

HttpRoute with_input(HttpRoute route) {
  route.takes_input = true;
  return route;
}

// How one model is asked, made of the routes of all; before them, as they take any method.
void add_descriptions(std::vector<HttpRoute>& routes, const ModelRegistry& registry) {
  const auto describe = [&registry, api = std::make_shared<const ModelApi>(routes)](const HttpRequest& http, const Reply& reply) {
    auto model = find_model(http, registry, /*in_query=*/false);
    model ? reply->send({200, kJson, api->openapi(**model), {}}) : reply->send(error_response(model.error()));
  };
  for (const char* pattern : {kModelPath, kVersionPath}) {
    routes.insert(routes.begin(), {"OPTIONS", pattern, "Description of the model's API", {}, describe});
  }
}

}  // namespace

std::vector<HttpRoute> inference_routes(const ModelRegistry& registry, size_t max_response_bytes, std::vector<HttpRoute> text_routes) {
  const auto ping = [&registry](const HttpRequest&, const Reply& reply) {
    const bool healthy = registry.all_healthy();
    reply->send({healthy ? 200 : 500, kJson, fmt::format("{{\n  \"status\": \"{}\"\n}}\n", healthy ? "Healthy" : "Unhealthy"), {}});
  };
  const auto predicts = [&registry, max_response_bytes](Route route) {
    return [&registry, max_response_bytes, route](const HttpRequest& request, const Reply& reply) {
      if (const auto refused = start_prediction(request, reply, registry, route, max_response_bytes)) reply->send(error_response(*refused));
    };
  };
  const auto no_workflow = [](const HttpRequest&, const Reply& reply) {
    reply->send(error_response(501, "NotImplementedException", "workflows are not supported"));
  };
  const char* text = "Text of a prompt, chunked with \"stream\": true; or the answer of the model's handler";
  const char* explanation = "Explanation of a prediction, of Python handlers";
  const auto texts = std::make_shared<const HttpRouter>("text", text_routes);
  const auto path = [&registry, texts, handlers = predicts({})](const HttpRequest& request, const Reply& reply) {
    auto found = find_model(request, registry, /*in_query=*/false);
    if (found && (*found)->spec().handler_kind != frontend::HandlerKind::kText) return handlers(request, reply);
    texts->handle(request, reply);
  };
  const auto predict = predicts({}), forward = predicts({.query_is_input = true}), explain = predicts({.explains = true});
  std::vector<HttpRoute> routes = {
      {"GET", "/ping", "Health of the server", {}, ping},
      {"*", "/ping", "Health of the server", {}, ping},
      with_input({"*", kModelPath, text, {}, predict}),
      with_input({"*", kVersionPath, text, {}, predict}),
      {"*", "/predictions/{model_name}/{model_version}/{url_path...}", "Of a handler that reads the path", {}, path},
      {"*", "/explanations/{model_name}", explanation, {}, explain},
      {"*", "/explanations/{model_name}/{model_version}", explanation, {}, explain},
      {"POST", "/v1/models/{model_name}:explain", explanation, {}, explain},
      {"POST", "/v2/models/{model_name}/explain", explanation, {}, explain},
      {"POST", "/v2/models/{model_name}/versions/{model_version}/explain", explanation, {}, explain},
      with_input({"POST", "/invocations", text, {"model_name", "model_version"}, predicts({.query_is_input = true, .model_in_query = true})}),
      with_input({"POST", "/models/{model_name}/invoke", text, {}, forward}),
      {"POST", "/wfpredict/{workflow_name}", "Not implemented", {}, no_workflow},
      with_input({"*", "/{model_name}/predict", text, {}, forward}),
      with_input({"*", "/{model_name}/{model_version}/predict", text, {}, forward}),
  };
  for (HttpRoute& route : open_inference_routes(registry, max_response_bytes)) routes.push_back(std::move(route));
  for (HttpRoute& route : text_routes) routes.push_back(std::move(route));
  add_descriptions(routes, registry);
  return routes;
}

}  // namespace penstock::rpc
