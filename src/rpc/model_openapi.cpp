#include "rpc/model_openapi.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "rpc/http_description.h"

namespace penstock::rpc {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kModel = "{model_name}", kVersion = "{model_version}";

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

void fill(std::string& pattern, std::string_view parameter, const std::string& value) {
  if (const size_t at = pattern.find(parameter); at != std::string::npos) pattern.replace(at, parameter.size(), value);
}

}  // namespace

ModelApi::ModelApi(const std::vector<HttpRoute>& routes) {
  for (const HttpRoute& route : routes) {
    if (route.pattern.find(kModel) == std::string::npos) continue;
    routes_.push_back(route);
    routes_.back().handle = nullptr;
  }
}

std::string ModelApi::openapi(const frontend::ServedModel& model) const {
  std::vector<HttpRoute> own = routes_;
  for (HttpRoute& route : own) {
    fill(route.pattern, kModel, model.name());
    fill(route.pattern, kVersion, model.version());
  }
  return describe_routes("Penstock: " + model.name(), model.version(), own, body_of(model));
}

}  // namespace penstock::rpc
