#pragma once
// What a rank's schedule does with its layers, in order: what weights that come and go are brought and freed by.
#include <vector>

#include "plan/partition.h"
#include "plan/schedule.h"

namespace penstock::plan {

struct LayerUse {
  enum class Kind { kForward, kBackward, kWeightGrads };  // the first two read the layers' weights
  Kind kind = Kind::kForward;
  int first_layer = 0, last_layer = 0;  // [first, last) of the model
  bool completes = false;               // afterwards these layers' weight gradients of the micro-batch are all there

  bool operator==(const LayerUse&) const = default;
};

// A forward uses layers one by one; a backward too, from the last, or `checkpoint_layers` of them at a time where they are computed again
// (counted from the stage's first). A stage whose weight gradients have actions of their own completes them there, all layers together.
[[nodiscard]] std::vector<LayerUse> layer_uses(const Schedule& schedule, int rank, const Boundaries& boundaries, int checkpoint_layers);

}  // namespace penstock::plan
