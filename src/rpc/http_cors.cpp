#include "rpc/http_cors.h"

#include <algorithm>

namespace penstock::rpc {
namespace {

// Whether a list with commas names the word.
bool names(std::string_view list, std::string_view word) {
  while (!list.empty()) {
    std::string_view item = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), item.size() + 1));
    item.remove_prefix(std::min(item.size(), item.find_first_not_of(' ')));
    item = item.substr(0, item.find_last_not_of(' ') + 1);
    if (item == word) return true;
  }
  return false;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> cors_headers(const CorsRules& rules, std::string_view origin) {
  const bool any = rules.origins == "*";
  if (!any && (origin.empty() || !names(rules.origins, origin))) return {};
  std::vector<std::pair<std::string, std::string>> headers = {{"Access-Control-Allow-Origin", any ? "*" : std::string(origin)}};
  if (!any) headers.emplace_back("Vary", "Origin");
  if (!rules.methods.empty()) headers.emplace_back("Access-Control-Allow-Methods", rules.methods);
  if (!rules.headers.empty()) headers.emplace_back("Access-Control-Allow-Headers", rules.headers);
  return headers;
}

}  // namespace penstock::rpc
