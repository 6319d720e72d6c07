#include "rpc/http_router.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

namespace penstock::rpc {
namespace {

// "/a/b" as "a", "b". An empty part (of a double '/') stays, and matches nothing.
std::vector<std::string_view> parts_of(std::string_view path) {
  std::vector<std::string_view> parts;
  path.remove_prefix(std::min<size_t>(1, path.size()));
  if (path.ends_with('/')) path.remove_suffix(1);  // clients of TorchServe write "/models/m/?timeout=1"
  while (true) {
    const size_t slash = path.find('/');
    parts.push_back(path.substr(0, slash));
    if (slash == std::string_view::npos) return parts;
    path.remove_prefix(slash + 1);
  }
}

// "{name}", "{name}:text" or "{name...}", which stands for all that is left of a path, taken apart; an empty name: it is none.
struct Parameter {
  std::string_view name;
  std::string_view suffix;
  bool is_rest = false;
};
Parameter parameter_of(std::string_view part) {
  const size_t end = part.find('}');
  if (part.empty() || part.front() != '{' || end == std::string_view::npos) return {};
  Parameter parameter{part.substr(1, end - 1), part.substr(end + 1)};
  parameter.is_rest = parameter.name.ends_with("...");
  if (parameter.is_rest) parameter.name.remove_suffix(3);
  return parameter;
}

enum class Match { kNo, kYes, kBroken };

Match match(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& parameters) {
  const auto wanted = parts_of(pattern), found = parts_of(path);
  const bool has_rest = parameter_of(wanted.back()).is_rest;
  if (has_rest ? found.size() < wanted.size() : wanted.size() != found.size()) return Match::kNo;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const Parameter parameter = parameter_of(wanted[i]);
    if (parameter.is_rest) {
      auto rest = decode_url(path.substr(static_cast<size_t>(found[i].data() - path.data())), /*plus_is_space=*/false);
      if (!rest) return Match::kBroken;
      if (rest->empty()) return Match::kNo;
      parameters[std::string(parameter.name)] = std::move(*rest);
      return Match::kYes;
    }
    if (parameter.name.empty()) {
      if (wanted[i] != found[i]) return Match::kNo;
      continue;
    }
    if (found[i].size() <= parameter.suffix.size() || !found[i].ends_with(parameter.suffix)) return Match::kNo;
    auto value = decode_url(found[i].substr(0, found[i].size() - parameter.suffix.size()), /*plus_is_space=*/false);
    if (!value) return Match::kBroken;
    parameters[std::string(parameter.name)] = std::move(*value);
  }
  return Match::kYes;
}

}  // namespace

std::vector<HttpRoute> guarded(std::vector<HttpRoute> routes, frontend::KeySet keys) {
  for (HttpRoute& route : routes) route.keys = keys;
  return routes;
}

HttpRouter::HttpRouter(std::string title, std::vector<HttpRoute> routes) : title_(std::move(title)), routes_(std::move(routes)) {
  const auto description = std::make_shared<std::string>();  // of a value of its own: routers are moved
  const auto describe = [description](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    reply->send({200, "application/json", *description, {}});
  };
  std::stable_partition(routes_.begin(), routes_.end(), [](const HttpRoute& route) { return !route.pattern.starts_with("/{"); });
  for (const HttpRoute& route : routes_) all_keys_ |= route.keys & ~frontend::kApiKey;
  routes_.push_back({"GET", "/api-description", "This description", {}, describe, all_keys_});
  routes_.push_back({"OPTIONS", "/", "This description", {}, describe, all_keys_});
  *description = openapi();
}

HttpRouter::Found HttpRouter::find(const std::string& method, const std::string& path) const {
  Found found;
  frontend::KeySet of_path = 0;
  for (const HttpRoute& route : routes_) {
    std::map<std::string, std::string> parameters;
    const Match matched = match(route.pattern, path, parameters);
    if (matched == Match::kBroken) {
      found.broken = true;
      break;
    }
    if (matched == Match::kNo) continue;
    if (!std::exchange(found.path_known, true)) found.lock.refuse = route.refuse;
    of_path |= route.keys;
    if (route.method != "*" && route.method != method) continue;
    found.route = &route;
    found.lock = {route.keys, route.refuse};
    found.parameters = std::move(parameters);
    return found;
  }
  found.lock.keys = found.path_known && !found.broken ? of_path : all_keys_;
  return found;
}

HttpRouter::Lock HttpRouter::lock(const std::string& method, const std::string& path) const { return find(method, path).lock; }

void HttpRouter::handle(HttpRequest request, const std::shared_ptr<HttpReply>& reply) const {
  Found found = find(request.method, request.path);
  if (found.route) {
    request.parameters = std::move(found.parameters);
    return found.route->handle(request, reply);
  }
  if (found.broken) return reply->send(error_response(400, "BadRequestException", "the path has a broken % escape"));
  if (found.path_known) {
    return reply->send(error_response(405, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document."));
  }
  reply->send(error_response(404, "ResourceNotFoundException", "Requested resource is not found, please refer to API document."));
}

std::string HttpRouter::openapi() const {
  using Json = nlohmann::ordered_json;
  Json json;
  json["openapi"] = "3.0.1";
  json["info"] = {{"title", title_}, {"version", "1.0.0"}};
  json["paths"] = Json::object();
  for (const HttpRoute& route : routes_) {
    Json operation;
    operation["summary"] = route.summary;
    operation["parameters"] = Json::array();
    for (const std::string_view part : parts_of(route.pattern)) {
      const Parameter parameter = parameter_of(part);
      if (parameter.name.empty()) continue;
      operation["parameters"].push_back(
          {{"in", "path"}, {"name", parameter.name}, {"required", true}, {"schema", {{"type", "string"}}}});
    }
    for (const std::string& name : route.query) {
      operation["parameters"].push_back({{"in", "query"}, {"name", name}, {"required", false}, {"schema", {{"type", "string"}}}});
    }
    operation["responses"] = {{"200", {{"description", "done"}}}, {"default", {{"description", "an error: code, type, message"}}}};
    std::string method = route.method == "*" ? "post" : route.method;
    for (char& c : method) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    std::string path = route.pattern;
    if (parameter_of(parts_of(path).back()).is_rest) path.replace(path.size() - 4, 4, "}");
    json["paths"][path][method] = std::move(operation);
  }
  return json.dump(2) + "\n";
}

}  // namespace penstock::rpc
