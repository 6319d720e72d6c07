#pragma once
// Fields of requests that speak of token ids. For the .cpp files of this folder.
#include <nlohmann/json.hpp>

#include <cstdint>
#include <utility>
#include <vector>

namespace penstock::text {

// Each answers false when the value does not fit; what is in the target then does not count.

inline constexpr const char* kLogitBiasExpected = "an object of at most 1024 token ids and numbers from -100 to 100";
[[nodiscard]] bool read_logit_bias(const nlohmann::json& value, std::vector<std::pair<int32_t, float>>& target);

inline constexpr const char* kStopTokensExpected = "a list of at most 64 token ids";
[[nodiscard]] bool read_stop_tokens(const nlohmann::json& value, std::vector<int32_t>& target);

// A list of at most `limit` ids, appended.
[[nodiscard]] bool read_token_ids(const nlohmann::json& value, size_t limit, std::vector<int32_t>& ids);

}  // namespace penstock::text
