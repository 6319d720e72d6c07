#pragma once
// float32 to the two-byte floats of model files.
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace penstock::formats {

// Rounded to nearest, ties to even, as everyone does; too large for F16 becomes infinite. `dtype`: "F16" or "BF16"; `floats`: whole float32 values.
[[nodiscard]] std::vector<std::byte> narrowed(std::span<const std::byte> floats, const std::string& dtype);

}  // namespace penstock::formats
