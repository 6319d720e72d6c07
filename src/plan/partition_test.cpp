#include "plan/partition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

namespace penstock::plan {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Weights = std::vector<double>;

PartitionRequest request(const std::string& method, int num_stages, bool allow_empty = false) { return {method, num_stages, allow_empty, 0}; }

Boundaries cut(const Weights& weights, const std::string& method, int num_stages) { return partition(weights, request(method, num_stages)).value(); }

std::string refusal(const Weights& weights, const PartitionRequest& asked) {
  const auto answer = partition(weights, asked);
  return answer.ok() ? "accepted" : answer.error().message();
}

// [heaviest stage, sum of squares] of a cut.
std::pair<double, double> quality(const Weights& weights, const Boundaries& boundaries) {
  std::pair<double, double> result{0, 0};
  for (size_t stage = 0; stage + 1 < boundaries.size(); ++stage) {
    const double weight = std::accumulate(weights.begin() + boundaries[stage], weights.begin() + boundaries[stage + 1], 0.0);
    result.first = std::max(result.first, weight);
    result.second += weight * weight;
  }
  return result;
}

// Tries every cut.
std::pair<double, double> best_quality(const Weights& weights, Boundaries begun, int stages_left) {
  const auto num_layers = static_cast<int>(weights.size());
  if (stages_left == 1) {
    begun.push_back(num_layers);
    return quality(weights, begun);
  }
  auto best = std::pair(std::numeric_limits<double>::max(), std::numeric_limits<double>::max());
  for (int next = begun.back() + 1; next <= num_layers - stages_left + 1; ++next) {
    Boundaries longer = begun;
    longer.push_back(next);
    best = std::min(best, best_quality(weights, longer, stages_left - 1));
  }
  return best;
}

TEST(Partition, UniformGivesTheFirstStagesOneLayerMore) {
  EXPECT_THAT(cut(Weights(27, 1), "uniform", 8), ElementsAre(0, 4, 8, 12, 15, 18, 21, 24, 27));
  EXPECT_THAT(cut(Weights(4, 1), "uniform", 4), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(cut(Weights(5, 1), "uniform", 1), ElementsAre(0, 5));
}

TEST(Partition, MinmaxKeepsAHeavyLayerAlone) {
  EXPECT_THAT(cut({1, 1, 30, 3}, "minmax", 3), ElementsAre(0, 2, 3, 4));
  EXPECT_THAT(cut({1, 1, 30, 3}, "parameters", 3), ElementsAre(0, 2, 3, 4));
}

TEST(Partition, MinmaxOfEqualWeightsIsUniform) {
  for (int layers = 1; layers <= 9; ++layers) {
    for (int stages = 1; stages <= layers; ++stages) {
      const Weights weights(static_cast<size_t>(layers), 7);
      EXPECT_EQ(cut(weights, "minmax", stages), cut(weights, "uniform", stages)) << layers << " " << stages;
    }
  }
}

TEST(Partition, MinmaxIsTheBestOfAllCuts) {
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    Weights weights(1 + random() % 9);
    for (double& weight : weights) weight = random() % 21;
    const int stages = 1 + static_cast<int>(random() % weights.size());
    EXPECT_EQ(quality(weights, cut(weights, "minmax", stages)), best_quality(weights, {0}, stages)) << testing::PrintToString(weights) << " in " << stages;
  }
}

TEST(Partition, MinmaxTakesFractionsExactly) {
  std::mt19937 random(2);
  std::uniform_real_distribution<double> real(0, 1);
  for (int round = 0; round < 200; ++round) {
    Weights weights(2 + random() % 8);
    for (double& weight : weights) weight = real(random);
    const int stages = 1 + static_cast<int>(random() % weights.size());
    EXPECT_NEAR(quality(weights, cut(weights, "minmax", stages)).first, best_quality(weights, {0}, stages).first, 1e-12);
  }
}

// Published: the answers of DeepSpeed's partition_balanced, ties included.
TEST(Partition, DeepspeedFindsWhatDeepspeedFinds) {
  Weights bert = {52559872};
  bert.insert(bert.end(), 24, 12596224);
  bert.insert(bert.end(), {0, 52559872});
  EXPECT_THAT(cut(bert, "deepspeed", 8), ElementsAre(0, 1, 5, 9, 13, 17, 21, 26, 27));
  // Not the lightest maximum: 27 where 22 is possible.
  const Weights uneven = {8, 1, 18, 20, 14, 8, 6, 16};
  EXPECT_THAT(cut(uneven, "deepspeed", 5), ElementsAre(0, 3, 4, 5, 7, 8));
  EXPECT_EQ(quality(uneven, cut(uneven, "minmax", 5)).first, 22);
}

TEST(Partition, TypeCountsTheLayersWhoseTypeMatches) {
  std::vector<LayerCost> layers = {{"Embedding", 100, 0}};
  for (int i = 0; i < 4; ++i) layers.push_back({"DecoderBlock", 1, 0});
  layers.push_back({"Head", 100, 0});
  EXPECT_THAT(partition(layers, request("type:decoder", 2)).value(), ElementsAre(0, 3, 6));
  EXPECT_THAT(partition(layers, request("type:^(embedding|head)$", 2)).value(), ElementsAre(0, 5, 6));
  EXPECT_THAT(partition(layers, request("type:conv", 2)).error().message(), HasSubstr("matches 'conv'; the types are Embedding, DecoderBlock, Head"));
  EXPECT_THAT(partition(layers, request("type:(", 2)).error().message(), HasSubstr("'(' is no regular expression"));
}

TEST(Partition, BoundariesMayBeGivenByHand) {
  EXPECT_THAT(cut(Weights(5, 1), "0, 1,5", 2), ElementsAre(0, 1, 5));
  EXPECT_THAT(refusal(Weights(5, 1), request("0,3,2,5", 3)), HasSubstr("boundaries 0,3,2,5: expected rising numbers"));
  EXPECT_THAT(refusal(Weights(5, 1), request("0,3,3,5", 3)), HasSubstr("stage 1 would hold no layer"));
  EXPECT_THAT(partition(Weights(5, 1), request("0,3,3,5", 3, true)).value(), ElementsAre(0, 3, 3, 5));
  EXPECT_THAT(refusal(Weights(5, 1), request("0,3,4", 2)), HasSubstr("expected to run from 0 to the model's 5 layers"));
  EXPECT_THAT(refusal(Weights(5, 1), request("0,5", 2)), HasSubstr("expected 3 numbers for 2 stages, found 2"));
}

TEST(Partition, MemoryLimitMovesTheCut) {
  // Balanced by weight it is 0,2,4; the first two layers do not fit together.
  const std::vector<LayerCost> layers = {{"a", 1, 60}, {"a", 1, 60}, {"a", 1, 10}, {"a", 1, 10}};
  PartitionRequest asked = request("minmax", 2);
  EXPECT_THAT(partition(layers, asked).value(), ElementsAre(0, 2, 4));
  asked.memory_limit = 100;
  EXPECT_THAT(partition(layers, asked).value(), ElementsAre(0, 1, 4));
  asked.memory_limit = 70;
  EXPECT_THAT(partition(layers, asked).error().message(), HasSubstr("140 bytes in all, no cut into 2 stages keeps each within 70; 3 stages would do"));
  asked.memory_limit = 50;
  EXPECT_THAT(partition(layers, asked).error().message(), HasSubstr("layer 0 (a) alone holds 60 bytes; a stage may hold 50"));
}

TEST(Partition, MethodsThatDoNotLookAtMemoryRefuseToExceedIt) {
  const std::vector<LayerCost> layers = {{"a", 1, 60}, {"a", 1, 60}, {"a", 1, 10}, {"a", 1, 10}};
  for (const char* method : {"uniform", "deepspeed", "0,2,4"}) {
    PartitionRequest asked = request(method, 2);
    asked.memory_limit = 100;
    EXPECT_THAT(partition(layers, asked).error().message(), HasSubstr("stage 0 would hold 120 bytes, it may hold 100")) << method;
  }
}

TEST(Partition, AnOverlongMethodIsNotRepeatedWhole) {
  for (const std::string& method : {std::string(100000, 'x'), "type:" + std::string(100000, 'x'), "type:" + std::string(999, 'x'), "0" + std::string(9000, ',') + "9"}) {
    EXPECT_LT(refusal({1, 2, 3, 4}, request(method, 2)).size(), 300u);
  }
  std::string many = "0";
  for (int i = 1; i < 9000; ++i) many += ",1";
  EXPECT_LT(refusal({1, 2, 3, 4}, request(many, 2)).size(), 300u);
}

TEST(Partition, AHostileRegularExpressionTakesNoTime) {
  const std::vector<LayerCost> layers(4, {std::string(900, 'a') + "!", 1, 0});
  EXPECT_THAT(partition(layers, request("type:(a+)+$", 2)).error().message(), HasSubstr("no layer's type matches"));
}

TEST(Partition, EveryCutHoldsAllLayersAndNoEmptyStage) {
  for (int layers = 1; layers <= 40; ++layers) {
    for (int stages = 1; stages <= layers; ++stages) {
      for (const char* method : {"uniform", "minmax", "deepspeed"}) {
        const Boundaries boundaries = cut(Weights(static_cast<size_t>(layers), 0), method, stages);
        EXPECT_EQ(check_boundaries(boundaries, layers, stages), std::nullopt) << method;
      }
    }
  }
}

TEST(Partition, EmptyStagesStandOnlyWhenAskedFor) {
  for (const char* method : {"uniform", "minmax", "deepspeed"}) {
    EXPECT_THAT(refusal({1, 1}, request(method, 4)), HasSubstr("2 layers cannot fill 4 stages; use at most 2 stages"));
    EXPECT_THAT(partition(Weights{1, 1}, request(method, 4, true)).value(), ElementsAre(0, 1, 2, 2, 2));
  }
}

TEST(Partition, RefusesWhatCannotBeCut) {
  EXPECT_THAT(refusal({}, request("minmax", 1)), HasSubstr("layers: expected 1 to 4096, found 0"));
  EXPECT_THAT(refusal({1}, request("uniform", 0)), HasSubstr("stages: expected 1 to 4096, found 0"));
  EXPECT_THAT(refusal(Weights(5000, 1), request("uniform", 1)), HasSubstr("found 5000"));
  EXPECT_THAT(refusal({1, -2}, request("minmax", 1)), HasSubstr("layer 1 weighs -2"));
  EXPECT_THAT(refusal({1, std::nan("")}, request("uniform", 1)), HasSubstr("layer 1 weighs nan"));
  EXPECT_THAT(refusal({std::numeric_limits<double>::infinity()}, request("minmax", 1)), HasSubstr("layer 0 weighs inf"));
  EXPECT_THAT(refusal({9, 1}, request("best", 1)), HasSubstr("'best'; expected minmax, parameters, uniform, deepspeed, type:REGEX or boundaries"));
  EXPECT_THAT(refusal({9, 1}, request("0,x", 1)), HasSubstr("'0,x'"));
  EXPECT_THAT(refusal(Weights(4096, 1), request("deepspeed", 2000)), HasSubstr("takes too long; use minmax"));
}

TEST(Partition, CheckSaysWhatIsWrongWithBoundaries) {
  EXPECT_EQ(check_boundaries(Boundaries{0, 2, 4}, 4, 2), std::nullopt);
  EXPECT_THAT(check_boundaries(Boundaries{0, 4}, 4, 2).value(), HasSubstr("expected 3 numbers for 2 stages, found 2"));
  EXPECT_THAT(check_boundaries(Boundaries{0, 2, 3}, 4, 2).value(), HasSubstr("boundaries 0,2,3: expected to run from 0 to the model's 4 layers"));
  EXPECT_THAT(check_boundaries(Boundaries{0, 4, 4}, 4, 2).value(), HasSubstr("stage 1 would hold no layer"));
}

}  // namespace
}  // namespace penstock::plan
