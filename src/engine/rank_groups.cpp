#include "engine/rank_groups.h"

#include <vector>

#include "base/error.h"

namespace penstock::engine {

RankGroups make_rank_groups(comm::Communicator& world, int tensor_ranks, Deadline deadline) {
  if (tensor_ranks < 1 || world.size() % tensor_ranks != 0) {
    throw error(Code::kInvalidArgument, "handler.tensor_ranks: expected a divisor of the worker group's {} ranks, found {}", world.size(), tensor_ranks);
  }
  RankGroups groups;
  groups.mesh = {.pipe = world.size() / tensor_ranks, .tensor = tensor_ranks};
  std::vector<int> leaders;
  for (const auto& ranks : groups.mesh.groups(plan::Axis::kTensor)) {
    leaders.push_back(ranks.front());
    if (tensor_ranks == 1) continue;
    if (auto group = world.split(ranks, fmt::format("tensor[{}]", leaders.size() - 1), deadline)) groups.tensor = std::move(group);
  }
  groups.stages = world.split(leaders, "stages", deadline);
  return groups;
}

}  // namespace penstock::engine
