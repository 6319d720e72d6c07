#include "cluster/executable_path.h"

#include "base/error.h"

namespace penstock::cluster {

std::filesystem::path executable_folder() {
  std::error_code problem;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", problem);
  if (problem) throw error(Code::kUnavailable, "cannot find the running program through /proc/self/exe: {}", problem.message());
  return program.parent_path();
}

}  // namespace penstock::cluster
