#include "plan/topology.h"

namespace penstock::plan {

std::vector<std::vector<int>> Topology::groups(Axis axis) const {
  const int length = axis == Axis::kPipe ? pipe : axis == Axis::kData ? data : tensor;
  std::vector<std::vector<int>> groups;
  for (int first = 0; first < size(); ++first) {
    Coordinates at = coordinates(first);
    int& position = axis == Axis::kPipe ? at.pipe : axis == Axis::kData ? at.data : at.tensor;
    if (position != 0) continue;
    auto& group = groups.emplace_back();
    for (; position < length; ++position) group.push_back(rank(at));
  }
  return groups;
}

}  // namespace penstock::plan
