#pragma once
// The groups of a served model's ranks.
#include <memory>

#include "comm/communicator.h"
#include "plan/topology.h"

namespace penstock::engine {

// Of one rank (Note [Ranks of a served model] in stage_loop.h).
struct RankGroups {
  plan::Topology mesh;                         // pipe × tensor
  std::unique_ptr<comm::Communicator> stages;  // the leaders of all stages, in their order; null on a rank that follows
  std::unique_ptr<comm::Communicator> tensor;  // the ranks of this stage; null where it is one

  [[nodiscard]] bool leads() const { return stages != nullptr; }
};

// Collective over `world`, which outlives them. `tensor_ranks` share each stage; stages are as many as that gives, neighbours in `world` share one.
// Throws Error kInvalidArgument where it does not divide the ranks.
[[nodiscard]] RankGroups make_rank_groups(comm::Communicator& world, int tensor_ranks, Deadline deadline);

}  // namespace penstock::engine
