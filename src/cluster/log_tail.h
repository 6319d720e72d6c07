#pragma once
// The last lines of a log, for the error that they explain.
#include <cstdint>
#include <filesystem>
#include <string>

namespace penstock::cluster {

// 0 when there is no such file.
[[nodiscard]] std::uintmax_t log_size(const std::filesystem::path& file);

// "; the last lines of FILE:" and at most 8 lines, 1,500 bytes, of what was written after its first `begin` bytes; else "; it wrote nothing to FILE".
[[nodiscard]] std::string log_tail(const std::filesystem::path& file, std::uintmax_t begin);

}  // namespace penstock::cluster
