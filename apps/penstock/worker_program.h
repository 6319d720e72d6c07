#pragma once
// Where the compute half of Penstock is.
#include <filesystem>

namespace penstock {

// The program that the environment variable PENSTOCK_WORKER names, else penstock-worker beside this program; it need not be there.
[[nodiscard]] std::filesystem::path worker_program();
// The same; throws Error kNotFound when it is not there.
[[nodiscard]] std::filesystem::path find_worker_program();

}  // namespace penstock
