#include "train/mesh_groups.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"

namespace penstock::train {
namespace {

void check_size(const comm::Communicator& world, const plan::Topology& mesh) {
  if (world.size() == mesh.size()) return;
  throw error(Code::kInvalidArgument, "mesh: {} x {} x {} (pipe x data x tensor) needs {} ranks, the job has {}", mesh.pipe, mesh.data, mesh.tensor, mesh.size(),
              world.size());
}

// Every rank takes part in the making of every group, in the same order.
std::unique_ptr<comm::Communicator> make_axis(comm::Communicator& world, const plan::Topology& mesh, plan::Axis axis, const char* name, Deadline deadline) {
  std::unique_ptr<comm::Communicator> mine;
  int index = 0;
  for (const auto& ranks : mesh.groups(axis)) {
    if (auto group = world.split(ranks, fmt::format("{}[{}]", name, index++), deadline)) mine = std::move(group);
  }
  return mine;
}

}  // namespace

std::vector<TiedParameter> find_tied(std::span<const model::LayerSpec> layers, std::span<const int> boundaries, std::span<const int> stage_ranks) {
  std::map<std::string, std::set<int>> holders;
  for (size_t stage = 0; stage < stage_ranks.size(); ++stage) {
    for (int layer = boundaries[stage]; layer < boundaries[stage + 1]; ++layer) {
      for (const std::string& name : layers[static_cast<size_t>(layer)].tied) holders[name].insert(stage_ranks[stage]);
    }
  }
  std::vector<TiedParameter> tied;
  for (const auto& [name, ranks] : holders) {
    if (ranks.size() > 1) tied.push_back({name, {ranks.begin(), ranks.end()}, nullptr});
  }
  return tied;
}

std::unique_ptr<comm::Communicator> make_tensor_group(comm::Communicator& world, const plan::Topology& mesh, Deadline deadline) {
  check_size(world, mesh);
  return make_axis(world, mesh, plan::Axis::kTensor, "tensor", deadline);
}

MeshGroups make_groups(comm::Communicator& world, const plan::Topology& mesh, std::vector<TiedParameter> tied, Deadline deadline) {
  check_size(world, mesh);
  MeshGroups groups;
  groups.pipe = make_axis(world, mesh, plan::Axis::kPipe, "pipe", deadline);
  if (mesh.data > 1) groups.data = make_axis(world, mesh, plan::Axis::kData, "data", deadline);
  for (TiedParameter& parameter : tied) {
    int index = 0;
    for (const auto& pipeline : mesh.groups(plan::Axis::kPipe)) {
      std::vector<int> ranks;
      for (const int position : parameter.pipe_ranks) ranks.push_back(pipeline[static_cast<size_t>(position)]);
      if (auto group = world.split(ranks, fmt::format("tied {}[{}]", parameter.name, index), deadline)) parameter.group = std::move(group);
      ++index;
    }
    if (parameter.group) groups.tied.push_back(std::move(parameter));
  }
  return groups;
}

}  // namespace penstock::train
