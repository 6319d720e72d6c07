#pragma once
// How much memory this process can still get.
#include <cstdint>
#include <filesystem>
#include <optional>

namespace penstock {

// Bytes: what /proc/meminfo calls available, or less where the process's control group (version 2) leaves less. nullopt: not known.
[[nodiscard]] std::optional<int64_t> available_memory();

// The same, below another root; for tests.
[[nodiscard]] std::optional<int64_t> available_memory(const std::filesystem::path& root);

}  // namespace penstock
