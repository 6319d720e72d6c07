#pragma once
// The groups in which a rank of the mesh talks.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "model/layer.h"
#include "plan/partition.h"
#include "plan/schedule.h"
#include "plan/topology.h"

namespace penstock::train {

// A parameter that layers of several ranks of one pipeline share.
struct TiedParameter {
  std::string name;
  std::vector<int> pipe_ranks;                // rising; the first counts it in norms and writes it
  std::unique_ptr<comm::Communicator> group;  // of those ranks
};

// This rank's groups; null where an axis has one rank only, except `pipe`.
struct MeshGroups {
  std::unique_ptr<comm::Communicator> pipe;    // the stages of this replica, in pipeline order; never null
  std::unique_ptr<comm::Communicator> data;    // the replicas of this position
  std::vector<TiedParameter> tied;             // those that this rank has
};

// The ranks that share this rank's layers: layers are made with them, before the other groups. Collective over `world`, whose size is mesh.size().
[[nodiscard]] std::unique_ptr<comm::Communicator> make_tensor_group(comm::Communicator& world, const plan::Topology& mesh, Deadline deadline);

// Which pipe ranks hold each tied parameter, by its name; only those held by several.
[[nodiscard]] std::vector<TiedParameter> find_tied(std::span<const model::LayerSpec> layers, std::span<const int> boundaries,
                                                   std::span<const int> stage_ranks);

// Collective over `world`, whose size is mesh.size(): every rank gives the same `tied`.
[[nodiscard]] MeshGroups make_groups(comm::Communicator& world, const plan::Topology& mesh, std::vector<TiedParameter> tied, Deadline deadline);

}  // namespace penstock::train
