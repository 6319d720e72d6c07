#pragma once
// OpenAPI 3.0.1 of a table of routes. Internal to rpc/.
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "rpc/http_router.h"

namespace penstock::rpc {

// "{name}", "{name}:text" or "{name...}", which stands for all that is left of a path; an empty name: it is none.
struct PathParameter {
  std::string_view name;
  std::string_view suffix;
  bool is_rest = false;
};
[[nodiscard]] PathParameter path_parameter(std::string_view part);

// "/a/b" as "a", "b". An empty part (of a double '/') stays, and matches nothing; one '/' at the end does not count.
[[nodiscard]] std::vector<std::string_view> path_parts(std::string_view path);

// As JSON. `input`: what the bodies of routes with takes_input may be, by content type.
[[nodiscard]] std::string describe_routes(const std::string& title, const std::string& version, std::span<const HttpRoute> routes,
                                          const nlohmann::ordered_json& input);

}  // namespace penstock::rpc
