#pragma once
// Random identifiers.
#include <string>

namespace penstock {

// A random UUID (version 4), "8-4-4-4-12" hexadecimal digits. For telling requests apart, not for secrets. Any thread.
[[nodiscard]] std::string make_uuid();

}  // namespace penstock
