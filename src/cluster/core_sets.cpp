#include "cluster/core_sets.h"

#include <sched.h>

namespace penstock::cluster {

std::vector<int> usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(static_cast<size_t>(core), &set)) cores.push_back(core);
  }
  return cores;
}

std::vector<int> cores_of_rank(int rank, int num_ranks, int each, const std::vector<int>& usable) {
  if (each <= 0 || usable.size() / static_cast<size_t>(each) < static_cast<size_t>(num_ranks)) return {};
  const auto first = usable.begin() + rank * each;
  return {first, first + each};
}

}  // namespace penstock::cluster
