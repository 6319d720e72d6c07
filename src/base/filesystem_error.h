#pragma once
// What std::filesystem throws, in our words.
#include <filesystem>

#include "base/error.h"

namespace penstock {

// kDataLoss: "cannot change PATH: REASON".
[[nodiscard]] Error error_of(const std::filesystem::filesystem_error& failure);

}  // namespace penstock
