#pragma once
// Where the compute half of Penstock is.
#include <filesystem>

namespace penstock {

// The program that the environment variable PENSTOCK_WORKER names, else penstock-worker beside this program. Throws Error kNotFound.
[[nodiscard]] std::filesystem::path find_worker_program();

}  // namespace penstock
