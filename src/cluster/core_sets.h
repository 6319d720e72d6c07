#pragma once
// Which cores a rank computes on: two ranks on one core wait for each other.
#include <vector>

namespace penstock::cluster {

// The cores that this process may run on, rising; empty when the system does not say.
[[nodiscard]] std::vector<int> usable_cores();

// The cores of `rank`: the next `each` of `usable` for every rank. Empty (run anywhere) when each is 0 or there are not enough for all ranks.
[[nodiscard]] std::vector<int> cores_of_rank(int rank, int num_ranks, int each, const std::vector<int>& usable);

}  // namespace penstock::cluster
