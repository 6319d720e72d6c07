#include "worker_program.h"

#include <unistd.h>

#include "base/error.h"
#include "cluster/executable_path.h"
#include "config/environment.h"

namespace penstock {

std::filesystem::path worker_program() {
  const auto given = config::process_environment()("PENSTOCK_WORKER");
  return given && !given->empty() ? std::filesystem::path(*given) : cluster::executable_folder() / "penstock-worker";
}

std::filesystem::path find_worker_program() {
  const std::filesystem::path program = worker_program();
  if (::access(program.c_str(), X_OK) == 0) return program;
  throw error(Code::kNotFound, "there is no worker program {}; build it (PENSTOCK_TORCH=ON), or name it by the environment variable "
              "PENSTOCK_WORKER", program.string());
}

}  // namespace penstock
