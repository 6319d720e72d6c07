#include "rpc/http_open_inference.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <utility>

#include "frontend/job.h"
#include "handler/infer_message.h"
#include "rpc/http_answers.h"
#include "rpc/http_job_options.h"
#include "rpc/http_prediction.h"
#include "rpc/infer_call.h"
#include "text/generation_request.h"

namespace penstock::rpc {
namespace {

using Json = nlohmann::ordered_json;
using ModelPtr = std::shared_ptr<frontend::ServedModel>;
using ReplyPtr = std::shared_ptr<HttpReply>;

HttpResponse json_response(const Json& json, int status = 200) {
  return {status, "application/json", json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n", {}};
}

Result<ModelPtr> model_of(const frontend::ModelRegistry& registry, const HttpRequest& request) {
  const auto version = request.parameters.find("model_version");
  return registry.find(request.parameters.at("model_name"), version == request.parameters.end() ? "" : version->second);
}

std::optional<Error> submit(const ModelPtr& model, const HttpRequest& http, HttpPrediction prediction, const ReplyPtr& reply) {
  auto options = job_options(http);
  if (!options) return options.error();
  options->sequence = std::move(prediction.sequence);
  auto job = model->jobs().submit(std::move(prediction.payload), std::move(*options), std::move(prediction.observer));
  if (!job) return job.error();
  reply->when_gone([model, job = *job] { model->jobs().cancel(*job); });
  return std::nullopt;
}

// A generation asked for by tensors.
std::optional<Error> infer_text(const ModelPtr& model, const HttpRequest& request, const ReplyPtr& reply, size_t limit) {
  auto json = text::parse_json(request.body, "the request", Code::kInvalidArgument, handler::kInferLimits);
  if (!json) return json.error();
  if (!json->is_object()) return Error(Code::kInvalidArgument, "the request: expected an object with the key 'inputs'");
  auto message = handler::parse_infer(*json, "inputs", "");
  if (!message) return message.error();
  auto payload = infer_payload(*model, {message->id, std::move(message->tensors)});
  if (!payload) return payload.error();
  const auto done = [reply, name = model->name(), id = message->id](Result<std::vector<handler::Tensor>> outputs) {
    if (!outputs) return reply->send(error_response(outputs.error()));
    reply->send({200, "application/json", handler::infer_json({name, id, std::move(*outputs)}, "outputs", nullptr), {}});
  };
  return submit(model, request, {std::move(*payload), {}, gather_tensors(limit, answer_too_long(limit), done)}, reply);
}

// A generation asked for by {"instances": [PROMPT or OBJECT]}.
std::optional<Error> predict_text(const ModelPtr& model, const HttpRequest& request, const ReplyPtr& reply, size_t limit) {
  const auto json = text::parse_ordered_json(request.body, "the request", Code::kInvalidArgument, text::kRequestDepth + 2);
  if (!json) return json.error();
  const bool listed = json.value().is_object() && json.value().contains("instances") && json.value()["instances"].is_array();
  if (!listed || json.value()["instances"].size() != 1) {
    return Error(Code::kInvalidArgument, "instances: expected a list of one prompt, or of one object with a prompt: the model generates text");
  }
  const auto& instance = json.value()["instances"][0];
  auto generation = text::parse_generation_request(instance.is_string() ? instance.get<std::string>() : instance.dump());
  if (!generation) return generation.error();
  const auto done = [reply](const Result<std::vector<handler::Tensor>>& outputs) {
    if (!outputs) return reply->send(error_response(outputs.error()));
    Json predictions = Json::array();
    for (const std::string_view item : handler::items_of(outputs.value().at(0))) predictions.push_back(item);
    reply->send(json_response({{"predictions", std::move(predictions)}}));
  };
  return submit(model, request, {std::move(*generation), {}, gather_tensors(limit, answer_too_long(limit), done)}, reply);
}

std::optional<Error> pass_on(const ModelPtr& model, const HttpRequest& request, const ReplyPtr& reply, size_t limit) {
  auto prediction = make_http_prediction(request, *model, reply, {limit});
  if (!prediction) return prediction.error();
  return submit(model, request, std::move(*prediction), reply);
}

// A handler of routes that name a model: `act` answers, or says why not.
template <typename Act>
auto with_model(const frontend::ModelRegistry& registry, Act act) {
  return [&registry, act](const HttpRequest& request, const ReplyPtr& reply) {
    auto model = model_of(registry, request);
    const std::optional<Error> refused = model ? act(*model, request, reply) : std::optional<Error>(model.error());
    if (refused) reply->send(error_response(*refused));
  };
}

Json metadata_of(const frontend::ModelRegistry& registry, const ModelPtr& model) {
  Json versions = Json::array();
  if (const auto all = registry.versions(model->name())) {
    for (const auto& version : all.value()) versions.push_back(version->version());
  }
  Json tensors = Json::array();
  if (model->spec().handler_kind == frontend::HandlerKind::kText) tensors.push_back({{"name", "text"}, {"datatype", "BYTES"}, {"shape", {1}}});
  return {{"name", model->name()}, {"versions", versions}, {"platform", platform_of(*model)}, {"inputs", tensors}, {"outputs", tensors}};
}

}  // namespace

std::vector<HttpRoute> open_inference_routes(const frontend::ModelRegistry& registry, size_t max_response_bytes) {
  const auto is_text = [](const ModelPtr& model) { return model->spec().handler_kind == frontend::HandlerKind::kText; };
  const auto infer = with_model(registry, [=](const ModelPtr& model, const HttpRequest& request, const ReplyPtr& reply) {
    return is_text(model) ? infer_text(model, request, reply, max_response_bytes) : pass_on(model, request, reply, max_response_bytes);
  });
  const auto predict = with_model(registry, [=](const ModelPtr& model, const HttpRequest& request, const ReplyPtr& reply) {
    return is_text(model) ? predict_text(model, request, reply, max_response_bytes) : pass_on(model, request, reply, max_response_bytes);
  });
  const auto ready = with_model(registry, [](const ModelPtr& model, const HttpRequest&, const ReplyPtr& reply) {
    reply->send(json_response({{"name", model->name()}, {"ready", model->serving()}}, model->serving() ? 200 : 503));
    return std::optional<Error>();
  });
  const auto metadata = with_model(registry, [&registry](const ModelPtr& model, const HttpRequest&, const ReplyPtr& reply) {
    reply->send(json_response(metadata_of(registry, model)));
    return std::optional<Error>();
  });
  const auto server = [](const HttpRequest&, const ReplyPtr& reply) {
    reply->send(json_response({{"name", "penstock"}, {"version", PENSTOCK_VERSION}, {"extensions", {"binary_tensor_data"}}}));
  };
  const auto live = [](const HttpRequest&, const ReplyPtr& reply) { reply->send(json_response({{"live", true}})); };
  const auto server_ready = [&registry](const HttpRequest&, const ReplyPtr& reply) {
    const bool all = registry.all_serving();
    reply->send(json_response({{"ready", all}}, all ? 200 : 503));
  };
  const char* version = "/v2/models/{model_name}/versions/{model_version}";
  return {
      {"GET", "/v2", "Name and version of the server", {}, server},
      {"GET", "/v2/health/live", "The server runs", {}, live},
      {"GET", "/v2/health/ready", "Every model answers", {}, server_ready},
      {"GET", "/v2/models/{model_name}", "What a model is", {}, metadata},
      {"GET", version, "What a model is", {}, metadata},
      {"GET", "/v2/models/{model_name}/ready", "A model answers", {}, ready},
      {"GET", std::string(version) + "/ready", "A model answers", {}, ready},
      {"POST", "/v2/models/{model_name}/infer", "Tensors in, tensors out (KServe version 2)", {}, infer},
      {"POST", std::string(version) + "/infer", "Tensors in, tensors out (KServe version 2)", {}, infer},
      {"POST", "/v1/models/{model_name}:predict", "Instances in, predictions out (KServe version 1)", {}, predict},
  };
}

}  // namespace penstock::rpc
