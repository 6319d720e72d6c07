#include "rpc/http_description.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <utility>

namespace penstock::rpc {
namespace {

using Json = nlohmann::ordered_json;

Json parameter(const char* in, std::string_view name) {
  return {{"in", in}, {"name", name}, {"required", std::string_view(in) == "path"}, {"schema", {{"type", "string"}}}};
}

Json operation_of(const HttpRoute& route, const Json& input) {
  Json operation = {{"summary", route.summary}, {"parameters", Json::array()}};
  for (const std::string_view part : path_parts(route.pattern)) {
    const PathParameter found = path_parameter(part);
    if (!found.name.empty()) operation["parameters"].push_back(parameter("path", found.name));
  }
  for (const std::string& name : route.query) operation["parameters"].push_back(parameter("query", name));
  if (route.takes_input) operation["requestBody"] = {{"required", true}, {"content", input}};
  operation["responses"] = {{"200", {{"description", "done"}}}, {"default", {{"description", "an error: code, type, message"}}}};
  return operation;
}

// "/a/{rest...}" is written "/a/{rest}".
std::string described_path(const HttpRoute& route) {
  std::string path = route.pattern;
  if (path_parameter(path_parts(path).back()).is_rest) path.replace(path.size() - 4, 4, "}");
  return path;
}

}  // namespace

std::vector<std::string_view> path_parts(std::string_view path) {
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

PathParameter path_parameter(std::string_view part) {
  const size_t end = part.find('}');
  if (part.empty() || part.front() != '{' || end == std::string_view::npos) return {};
  PathParameter parameter{part.substr(1, end - 1), part.substr(end + 1)};
  parameter.is_rest = parameter.name.ends_with("...");
  if (parameter.is_rest) parameter.name.remove_suffix(3);
  return parameter;
}

std::string describe_routes(const std::string& title, const std::string& version, std::span<const HttpRoute> routes, const Json& input) {
  Json json = {{"openapi", "3.0.1"}, {"info", {{"title", title}, {"version", version}}}, {"paths", Json::object()}};
  for (const HttpRoute& route : routes) {
    Json& path = json["paths"][described_path(route)];
    std::string method = route.method == "*" ? "post" : route.method;
    for (char& c : method) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (!path.contains(method)) path[method] = operation_of(route, input);
  }
  return json.dump(2) + "\n";
}

}  // namespace penstock::rpc
