#include "rpc/model_openapi.h"

#include <nlohmann/json.hpp>

namespace penstock::rpc {
namespace {

using Json = nlohmann::ordered_json;

Json property(const char* type) { return {{"type", type}}; }

// What the body may be, by content type.
Json body_of(const frontend::ServedModel& model) {
  if (model.spec().handler_kind != frontend::HandlerKind::kText) return {{"*/*", {{"schema", {{"type", "string"}, {"format", "binary"}}}}}};
  const Json properties = {{"prompt", property("string")},      {"max_tokens", property("integer")}, {"max_new_tokens", property("integer")},
                           {"temperature", property("number")}, {"top_k", property("integer")},      {"top_p", property("number")},
                           {"seed", property("integer")},       {"stop", Json::object()},            {"stream", property("boolean")}};
  return {{"application/json", {{"schema", {{"type", "object"}, {"required", Json::array({"prompt"})}, {"properties", properties}}}}},
          {"text/plain", {{"schema", property("string")}}}};
}

}  // namespace

std::string model_openapi(const frontend::ServedModel& model) {
  const Json operation = {{"summary", "Predictions of the model " + model.name()},
                          {"requestBody", {{"required", true}, {"content", body_of(model)}}},
                          {"responses", {{"200", {{"description", "the answer"}}}, {"default", {{"description", "an error: code, type, message"}}}}}};
  Json json;
  json["openapi"] = "3.0.1";
  json["info"] = {{"title", "Penstock: " + model.name()}, {"version", model.version()}};
  json["paths"] = {{"/predictions/" + model.name(), {{"post", operation}}},
                   {"/predictions/" + model.name() + "/" + model.version(), {{"post", operation}}}};
  return json.dump(2) + "\n";
}

}  // namespace penstock::rpc
