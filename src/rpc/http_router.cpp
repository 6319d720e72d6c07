#include "rpc/http_router.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "rpc/http_description.h"

namespace penstock::rpc {
namespace {

enum class Match { kNo, kYes, kBroken };

Match match(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& parameters) {
  const auto wanted = path_parts(pattern), found = path_parts(path);
  const bool has_rest = path_parameter(wanted.back()).is_rest;
  if (has_rest ? found.size() < wanted.size() : wanted.size() != found.size()) return Match::kNo;
  for (size_t i = 0; i < wanted.size(); ++i) {
    const PathParameter parameter = path_parameter(wanted[i]);
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

HttpRouter::HttpRouter(std::string title, std::vector<HttpRoute> routes, std::vector<HttpRefusals> refusals)
    : title_(std::move(title)), routes_(std::move(routes)), refusals_(std::move(refusals)) {
  const auto description = std::make_shared<std::string>();  // of a value of its own: routers are moved
  const auto describe = [description](const HttpRequest&, const std::shared_ptr<HttpReply>& reply) {
    reply->send({200, "application/json", *description, {}});
  };
  std::stable_partition(routes_.begin(), routes_.end(), [](const HttpRoute& route) { return !route.pattern.starts_with("/{"); });
  for (const HttpRoute& route : routes_) all_keys_ |= route.keys & ~frontend::kApiKey;
  for (const char* method : {"GET", "*"}) routes_.push_back({method, "/api-description", "This description", {}, describe, all_keys_});
  routes_.push_back({"OPTIONS", "/", "This description", {}, describe, all_keys_});
  *description = openapi();
}

HttpRouter::Found HttpRouter::find(const std::string& method, const std::string& path) const {
  Found found;
  if (const HttpRefusals* refusals = refusals_of(path)) found.lock.refuse = refusals->locked;
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
    if (route.method != "*" && route.method != method) {
      found.methods.insert(route.method);
      continue;
    }
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
  reply->send(unknown(request, found));
}

const HttpRefusals* HttpRouter::refusals_of(const std::string& path) const {
  const auto below = std::ranges::find_if(refusals_, [&](const HttpRefusals& refusals) { return path.starts_with(refusals.prefix); });
  return below == refusals_.end() ? nullptr : &*below;
}

HttpResponse HttpRouter::refusal(int status, const char* type, const std::string& path, const std::string& why) const {
  const HttpRefusals* refusals = refusals_of(path);
  return refusals ? refusals->unknown(status, why) : error_response(status, type, why);
}

// Why no route took it.
HttpResponse HttpRouter::unknown(const HttpRequest& request, const Found& found) const {
  const HttpRefusals* refusals = refusals_of(request.path);
  if (found.broken) return refusal(400, "BadRequestException", request.path, "the path has a broken % escape");
  if (!found.path_known) {
    if (!refusals) return error_response(404, "ResourceNotFoundException", "Requested resource is not found, please refer to API document.");
    return refusals->unknown(404, fmt::format("there is no path {}; /api-description lists those that there are", request.path.substr(0, 200)));
  }
  const std::string allowed = fmt::format("{}", fmt::join(found.methods, ", "));
  HttpResponse response = refusals ? refusals->unknown(405, fmt::format("{} is not allowed here; expected {}", request.method, allowed))
                                   : error_response(405, "MethodNotAllowedException", "Requested method is not allowed, please refer to API document.");
  response.headers.emplace_back("Allow", allowed);
  return response;
}

std::string HttpRouter::openapi() const {
  return describe_routes(title_, "1.0.0", routes_, {{"*/*", {{"schema", {{"type", "string"}, {"format", "binary"}}}}}});
}

}  // namespace penstock::rpc
