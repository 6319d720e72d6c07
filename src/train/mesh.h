#pragma once
// Which rank holds which stage of which replica, and the groups that they talk in.
#include <memory>

#include "comm/communicator.h"

namespace penstock::train {

// Ranks are numbered row-major over the axes (pipe, data): the replicas of one stage are neighbours.
struct Mesh {
  int data = 1;  // replicas
  int pipe = 1;  // stages

  [[nodiscard]] int size() const { return data * pipe; }
  [[nodiscard]] int rank(int stage, int replica) const { return stage * data + replica; }
  [[nodiscard]] int stage_of(int rank) const { return rank / data; }
  [[nodiscard]] int replica_of(int rank) const { return rank % data; }
};

// This rank's groups.
struct MeshGroups {
  std::unique_ptr<comm::Communicator> pipe;      // the stages of this replica, in pipeline order; never null
  std::unique_ptr<comm::Communicator> replicas;  // the replicas of this stage; null when there is one
  std::unique_ptr<comm::Communicator> tied;      // first and last stage of this replica, on those ranks; null when nothing is tied across stages
};

// Collective over `world`, whose size is mesh.size(). `tied`: also make the group of first and last stage.
[[nodiscard]] MeshGroups make_groups(comm::Communicator& world, const Mesh& mesh, bool tied, Deadline deadline);

}  // namespace penstock::train
