#pragma once
// The limits of a GenerationRequest, for those that do not come as JSON.
#include <cstddef>
#include <optional>

#include "base/error.h"
#include "text/generation_request.h"

namespace penstock::text {

inline constexpr size_t kMaxPromptBytes = 1 << 20;
inline constexpr size_t kMaxPromptIds = 1 << 20;
inline constexpr size_t kMaxStops = 16;
inline constexpr size_t kMaxStopBytes = 256;
inline constexpr size_t kMaxSaltBytes = 256;

// kInvalidArgument naming the first field that is out of its range, as parse_generation_request() does; nullopt: all is well. Ids are only checked
// not to be negative: the vocabulary is the engine's. The constraint is not looked at: constraint_grammar() takes it.
[[nodiscard]] std::optional<Error> check_generation_request(const GenerationRequest& request);

}  // namespace penstock::text
