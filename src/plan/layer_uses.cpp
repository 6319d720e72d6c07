#include "plan/layer_uses.h"

#include <algorithm>

namespace penstock::plan {

std::vector<LayerUse> layer_uses(const Schedule& schedule, int rank, const Boundaries& boundaries, int checkpoint_layers) {
  using Kind = LayerUse::Kind;
  const auto& actions = schedule.ranks[static_cast<size_t>(rank)];
  std::vector<bool> splits(static_cast<size_t>(schedule.num_stages));
  for (const Action& a : actions) {
    if (a.kind == ActionKind::kWeightGrad) splits[static_cast<size_t>(a.stage)] = true;
  }
  const int step = std::max(1, checkpoint_layers);
  std::vector<LayerUse> uses;
  for (const Action& a : actions) {
    const auto stage = static_cast<size_t>(a.stage);
    const int begin = boundaries[stage], end = boundaries[stage + 1];
    if (a.kind == ActionKind::kForward) {
      for (int layer = begin; layer < end; ++layer) uses.push_back({Kind::kForward, layer, layer + 1, false});
    }
    if (a.kind == ActionKind::kBackward || a.kind == ActionKind::kInputGrad) {
      const int segments = (end - begin + step - 1) / step;
      for (int segment = segments - 1; segment >= 0; --segment) {
        const int first = begin + segment * step;
        uses.push_back({Kind::kBackward, first, std::min(first + step, end), !splits[stage]});
      }
    }
    if (a.kind == ActionKind::kWeightGrad || (a.kind == ActionKind::kBackward && splits[stage])) uses.push_back({Kind::kWeightGrads, begin, end, true});
  }
  return uses;
}

}  // namespace penstock::plan
