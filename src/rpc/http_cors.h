#pragma once
// Which web pages of other origins may read our answers.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace penstock::rpc {

struct CorsRules {
  std::string origins;  // "*", or "https://a.example, https://b.example"; empty = none
  std::string methods;  // as the header carries them; empty = those that need no permission
  std::string headers;  // as the header carries them; empty = those that need no permission
};

// What an answer to a request of this origin says (empty: a request that no page made); empty for one that the rules do not name.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> cors_headers(const CorsRules& rules, std::string_view origin);

}  // namespace penstock::rpc
