#include "text/token_fields.h"

#include <charconv>
#include <string>

#include "text/generation_request.h"

namespace penstock::text {

using Json = nlohmann::json;

bool read_token_ids(const Json& value, size_t limit, std::vector<int32_t>& ids) {
  if (!value.is_array() || value.size() > limit) return false;
  for (const Json& id : value) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) return false;
    ids.push_back(id.get<int32_t>());
  }
  return true;
}

bool read_stop_tokens(const Json& value, std::vector<int32_t>& target) {
  target.clear();
  return read_token_ids(value, kMaxStopTokens, target);
}

// Keys of an object are texts: "50256".
bool read_logit_bias(const Json& value, std::vector<std::pair<int32_t, float>>& target) {
  target.clear();
  if (!value.is_object() || value.size() > kMaxLogitBiases) return false;
  for (const auto& [key, bias] : value.items()) {
    int32_t id = 0;
    const auto [end, failed] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (failed != std::errc() || end != key.data() + key.size() || id < 0) return false;
    if (!bias.is_number() || bias.get<double>() < -100 || bias.get<double>() > 100) return false;
    target.emplace_back(id, bias.get<float>());
  }
  return true;
}

}  // namespace penstock::text
