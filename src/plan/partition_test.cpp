#include "plan/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

namespace penstock::plan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// [heaviest stage, sum of squares] of a cut.
std::pair<int64_t, int64_t> quality(const std::vector<int64_t>& weights, const Boundaries& cut) {
  std::pair<int64_t, int64_t> result{0, 0};
  for (size_t stage = 0; stage + 1 < cut.size(); ++stage) {
    const int64_t weight = std::accumulate(weights.begin() + cut[stage], weights.begin() + cut[stage + 1], int64_t{0});
    result.first = std::max(result.first, weight);
    result.second += weight * weight;
  }
  return result;
}

// Tries every cut.
std::pair<int64_t, int64_t> best_quality(const std::vector<int64_t>& weights, Boundaries cut, int stages_left) {
  const auto num_layers = static_cast<int>(weights.size());
  if (stages_left == 1) {
    cut.push_back(num_layers);
    return quality(weights, cut);
  }
  auto best = std::pair(std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::max());
  for (int next = cut.back() + 1; next <= num_layers - stages_left + 1; ++next) {
    Boundaries longer = cut;
    longer.push_back(next);
    best = std::min(best, best_quality(weights, longer, stages_left - 1));
  }
  return best;
}

TEST(Partition, UniformGivesTheFirstStagesOneLayerMore) {
  EXPECT_THAT(partition_uniform(27, 8).value(), ElementsAre(0, 4, 8, 12, 15, 18, 21, 24, 27));
  EXPECT_THAT(partition_uniform(4, 4).value(), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(partition_uniform(5, 1).value(), ElementsAre(0, 5));
}

TEST(Partition, ByWeightsKeepsAHeavyLayerAlone) {
  EXPECT_THAT(partition_by_weights(std::vector<int64_t>{1, 1, 30, 3}, 3).value(), ElementsAre(0, 2, 3, 4));
}

TEST(Partition, ByEqualWeightsIsUniform) {
  for (int layers = 1; layers <= 9; ++layers) {
    for (int stages = 1; stages <= layers; ++stages) {
      const std::vector<int64_t> weights(static_cast<size_t>(layers), 7);
      EXPECT_EQ(partition_by_weights(weights, stages).value(), partition_uniform(layers, stages).value()) << layers << " " << stages;
    }
  }
}

TEST(Partition, ByWeightsIsTheBestOfAllCuts) {
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    std::vector<int64_t> weights(1 + random() % 9);
    for (int64_t& weight : weights) weight = random() % 21;
    const int stages = 1 + static_cast<int>(random() % weights.size());
    const Boundaries cut = partition_by_weights(weights, stages).value();
    EXPECT_EQ(quality(weights, cut), best_quality(weights, {0}, stages)) << testing::PrintToString(weights) << " in " << stages;
  }
}

TEST(Partition, EveryCutHoldsAllLayersAndNoEmptyStage) {
  for (int layers = 1; layers <= 40; ++layers) {
    for (int stages = 1; stages <= layers; ++stages) {
      EXPECT_EQ(check_boundaries(partition_uniform(layers, stages).value(), layers, stages), std::nullopt);
      const std::vector<int64_t> nothing(static_cast<size_t>(layers), 0);
      EXPECT_EQ(check_boundaries(partition_by_weights(nothing, stages).value(), layers, stages), std::nullopt);
    }
  }
}

TEST(Partition, IsFoundByName) {
  const std::vector<int64_t> parameters = {9, 1, 1, 1};
  EXPECT_THAT(partition_by_name("uniform", parameters, 2).value(), ElementsAre(0, 2, 4));
  EXPECT_THAT(partition_by_name("parameters", parameters, 2).value(), ElementsAre(0, 1, 4));
  EXPECT_THAT(partition_by_name("best", parameters, 2).error().message(), HasSubstr("'best'; expected uniform or parameters"));
}

TEST(Partition, RefusesWhatCannotBeCut) {
  EXPECT_THAT(partition_uniform(3, 4).error().message(), HasSubstr("3 layers cannot fill 4 stages; use at most 3 stages"));
  EXPECT_THAT(partition_by_weights(std::vector<int64_t>{}, 1).error().message(), HasSubstr("0 layers"));
  EXPECT_THAT(partition_uniform(3, 0).error().message(), HasSubstr("expected at least 1, found 0"));
  EXPECT_THAT(partition_uniform(-3, 1).error().message(), HasSubstr("0 layers"));
  EXPECT_THAT(partition_uniform(5000, 1).error().message(), HasSubstr("expected at most 4096, found 5000"));
  EXPECT_THAT(partition_by_weights(std::vector<int64_t>{1, -2}, 1).error().message(), HasSubstr("layer 1 weighs -2"));
  const auto most = std::numeric_limits<int64_t>::max();
  EXPECT_THAT(partition_by_weights(std::vector<int64_t>{most, 1}, 1).error().message(), HasSubstr("first 2 layers does not fit"));
}

TEST(Partition, CheckSaysWhatIsWrongWithBoundaries) {
  EXPECT_EQ(check_boundaries(Boundaries{0, 2, 4}, 4, 2), std::nullopt);
  EXPECT_THAT(check_boundaries(Boundaries{0, 4}, 4, 2).value(), HasSubstr("expected 3 numbers for 2 stages, found 2"));
  EXPECT_THAT(check_boundaries(Boundaries{0, 2, 3}, 4, 2).value(), HasSubstr("boundaries 0,2,3: expected to run from 0 to the model's 4 layers"));
  EXPECT_THAT(check_boundaries(Boundaries{0, 4, 4}, 4, 2).value(), HasSubstr("stage 1 would hold no layer"));
}

}  // namespace
}  // namespace penstock::plan
