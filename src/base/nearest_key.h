#pragma once
// The known key that a mistyped one most likely means.
#include <span>
#include <string>
#include <string_view>

namespace penstock {

// The key of `known` with the smallest edit distance to `key` (insert, delete, replace, swap of neighbours; letter case and
// '-' against '_' cost nothing); the first of several. REQUIRES: `known` is not empty. Only the first 128 bytes are compared.
[[nodiscard]] std::string_view nearest_key(std::string_view key, std::span<const std::string_view> known);

// "unknown key 'x'; did you mean 'y'?", the same words wherever keys are read. An overlong key is shortened.
[[nodiscard]] std::string unknown_key(std::string_view key, std::span<const std::string_view> known);

}  // namespace penstock
