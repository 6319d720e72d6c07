#include "train/mesh.h"

#include <vector>

#include "base/error.h"

namespace penstock::train {

MeshGroups make_groups(comm::Communicator& world, const Mesh& mesh, bool tied, Deadline deadline) {
  PENSTOCK_CHECK(world.size() == mesh.size(), "{} ranks for a mesh of {} x {}", world.size(), mesh.pipe, mesh.data);
  MeshGroups groups;
  // Every rank takes part in the making of every group, in the same order.
  for (int replica = 0; replica < mesh.data; ++replica) {
    std::vector<int> ranks;
    for (int stage = 0; stage < mesh.pipe; ++stage) ranks.push_back(mesh.rank(stage, replica));
    if (auto group = world.split(ranks, fmt::format("pipe[{}]", replica), deadline)) groups.pipe = std::move(group);
    if (!tied || mesh.pipe == 1) continue;
    const std::vector<int> ends{ranks.front(), ranks.back()};
    if (auto group = world.split(ends, fmt::format("tied[{}]", replica), deadline)) groups.tied = std::move(group);
  }
  for (int stage = 0; mesh.data > 1 && stage < mesh.pipe; ++stage) {
    std::vector<int> ranks;
    for (int replica = 0; replica < mesh.data; ++replica) ranks.push_back(mesh.rank(stage, replica));
    if (auto group = world.split(ranks, fmt::format("data[{}]", stage), deadline)) groups.replicas = std::move(group);
  }
  return groups;
}

}  // namespace penstock::train
