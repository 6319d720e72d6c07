#pragma once
// Where the running program lies, to find its sibling programs.
#include <filesystem>

namespace penstock::cluster {

// The folder of the running executable, links resolved. Throws Error kUnavailable without /proc.
[[nodiscard]] std::filesystem::path executable_folder();

}  // namespace penstock::cluster
