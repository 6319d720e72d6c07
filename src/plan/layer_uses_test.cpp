#include "plan/layer_uses.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>

namespace penstock::plan {
namespace {

// "F0 F1 B1! B0!" = forward of layer 0, of layer 1, then backwards, which complete weight gradients.
std::string drawn(const std::vector<LayerUse>& uses) {
  std::string text;
  for (const LayerUse& use : uses) {
    const char kind = use.kind == LayerUse::Kind::kForward ? 'F' : use.kind == LayerUse::Kind::kBackward ? 'B' : 'W';
    text += fmt::format("{}{}{}{}", text.empty() ? "" : " ", kind, use.first_layer, use.last_layer > use.first_layer + 1 ? fmt::format("-{}", use.last_layer - 1) : "");
    text += use.completes ? "!" : "";
  }
  return text;
}

std::string drawn(const char* schedule, int ranks, int microbatches, int rank, const Boundaries& boundaries, int checkpoint_layers = 0) {
  return drawn(layer_uses(make_schedule({schedule, ranks, microbatches, 0}).value(), rank, boundaries, checkpoint_layers));
}

TEST(LayerUses, GoForwardLayerByLayerAndBackTheSameWay) {
  EXPECT_EQ(drawn("1f1b", 2, 2, 1, {0, 2, 4}), "F2 F3 B3! B2! F2 F3 B3! B2!");
  EXPECT_EQ(drawn("1f1b", 2, 2, 0, {0, 2, 4}), "F0 F1 F0 F1 B1! B0! B1! B0!");
}

TEST(LayerUses, TakeSegmentsThatAreComputedAgainTogether) { EXPECT_EQ(drawn("gpipe", 1, 1, 0, {0, 5}, 2), "F0 F1 F2 F3 F4 B4! B2-3! B0-1!"); }

TEST(LayerUses, CompleteWeightGradientsWhereTheyHaveActionsOfTheirOwn) {
  EXPECT_EQ(drawn("zb-h1", 2, 2, 1, {0, 2, 4}), "F2 F3 B3 B2 F2 F3 B3 B2 W2-3! W2-3!");
}

TEST(LayerUses, CompleteEachLayerOnceAMicrobatchWithEverySchedule) {
  for (const char* name : {"gpipe", "1f1b", "eager-1f1b", "interleaved-1f1b", "looped-bfs", "zb-h1", "zb-v", "dualpipev"}) {
    for (int ranks = 1; ranks <= 3; ++ranks) {
      const auto schedule = make_schedule({name, ranks, 6, 0}).value();
      Boundaries boundaries = {0};
      for (int stage = 0; stage < schedule.num_stages; ++stage) boundaries.push_back(boundaries.back() + 3);
      std::map<int, int> completed;
      for (int rank = 0; rank < ranks; ++rank) {
        for (const LayerUse& use : layer_uses(schedule, rank, boundaries, 2)) {
          for (int layer = use.first_layer; use.completes && layer < use.last_layer; ++layer) ++completed[layer];
        }
      }
      EXPECT_EQ(completed.size(), static_cast<size_t>(3 * schedule.num_stages)) << name;
      for (const auto& [layer, times] : completed) EXPECT_EQ(times, 6) << name << " layer " << layer;
    }
  }
}

TEST(LayerUses, OfAnEvaluationAreForwardsOnly) { EXPECT_EQ(drawn(layer_uses(forward_part(make_schedule({"1f1b", 1, 2, 0}).value()), 0, {0, 2}, 3)), "F0 F1 F0 F1"); }

}  // namespace
}  // namespace penstock::plan
