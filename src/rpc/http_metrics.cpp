#include "rpc/http_metrics.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace penstock::rpc {
namespace {

constexpr const char* kPrometheusText = "text/plain; version=0.0.4; charset=utf-8";

// Every value of name[]. The target was decoded once already, so its escapes are whole.
std::vector<std::string> wanted_names(std::string_view target) {
  std::vector<std::string> names;
  const size_t mark = target.find('?');
  std::string_view query = mark == std::string_view::npos ? "" : target.substr(mark + 1);
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const size_t equals = pair.find('=');
    if (equals == std::string_view::npos || decode_url(pair.substr(0, equals), true) != "name[]") continue;
    if (auto value = decode_url(pair.substr(equals + 1), true)) names.push_back(std::move(*value));
  }
  return names;
}

}  // namespace

std::vector<HttpRoute> metrics_routes(std::function<std::string(const std::vector<std::string>& names)> render) {
  const auto answer = [render = std::move(render)](const HttpRequest& request, const std::shared_ptr<HttpReply>& reply) {
    reply->send({200, kPrometheusText, render(wanted_names(request.target)), {}});
  };
  return {{"GET", "/metrics", "Metrics as Prometheus text", {"name[]"}, answer}};
}

}  // namespace penstock::rpc
