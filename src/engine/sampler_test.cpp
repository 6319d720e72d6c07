#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <set>

namespace penstock::engine {
namespace {

using testing::ElementsAre;

TEST(Sample, GreedyTakesTheLargestAndTheLowestIdAmongEquals) {
  const std::vector<float> logits{1, 3, 3, -2};
  EXPECT_EQ(sample(logits, {.temperature = 0}, 0), 1);
}

TEST(Sample, DependsOnSeedAndPositionAlone) {
  std::vector<float> logits(50);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
  std::set<int32_t> by_position, by_seed;
  for (int i = 0; i < 50; ++i) {
    by_position.insert(sample(logits, {.seed = 1}, i));
    by_seed.insert(sample(logits, {.seed = static_cast<uint64_t>(i)}, 1));
    EXPECT_EQ(sample(logits, {.seed = 9}, i), sample(logits, {.seed = 9}, i));
  }
  EXPECT_GT(by_position.size(), 10u);
  EXPECT_GT(by_seed.size(), 10u);
}

// How often each id comes in many draws.
std::vector<double> shares(const std::vector<float>& logits, const SamplingChoice& choice) {
  constexpr int kDraws = 20000;
  std::vector<double> count(logits.size());
  for (int i = 0; i < kDraws; ++i) count[static_cast<size_t>(sample(logits, choice, i))] += 1.0 / kDraws;
  return count;
}

TEST(Sample, FollowsTheSoftmaxAndItsCuts) {
  const std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  EXPECT_NEAR(shares(logits, {.seed = 3})[1], 0.3, 0.02);
  EXPECT_NEAR(shares(logits, {.temperature = 0.5, .seed = 3})[0], 0.25 / (0.25 + 0.09 + 0.0225 + 0.0025), 0.02);
  const auto top_k = shares(logits, {.top_k = 2, .seed = 3});
  EXPECT_NEAR(top_k[0], 0.625, 0.02);
  EXPECT_EQ(top_k[2] + top_k[3], 0);
  const auto top_p = shares(logits, {.top_p = 0.79, .seed = 3});
  EXPECT_GT(top_p[1], 0);
  EXPECT_EQ(top_p[2] + top_p[3], 0) << "the smallest set that reaches 0.79 is the first two";
  const auto min_p = shares(logits, {.min_p = 0.25, .seed = 3});
  EXPECT_GT(min_p[2], 0) << "0.15 is more than a quarter of 0.5";
  EXPECT_EQ(min_p[3], 0);
}

TEST(Sample, ANucleusOfManyIdsIsTheSameHoweverFarItIsSorted) {
  std::vector<float> logits(1000, 0.0f);  // all alike: 0.5 is reached by the first 500
  const auto half = shares(logits, {.top_p = 0.5, .seed = 1});
  EXPECT_GT(std::accumulate(half.begin() + 400, half.begin() + 500, 0.0), 0);
  EXPECT_EQ(std::accumulate(half.begin() + 500, half.end(), 0.0), 0);
}

TEST(Sample, NeverGivesWhatIsImpossible) {
  std::vector<float> logits(100, -std::numeric_limits<float>::infinity());
  logits[7] = 1;
  for (int i = 0; i < 200; ++i) EXPECT_EQ(sample(logits, {.seed = 5}, i), 7);
}

TEST(Adjust, BiasIsAddedAndIdsBeyondTheVocabularyArePassedOver) {
  std::vector<float> logits{1, 2, 3};
  adjust(logits, {.logit_bias = {{0, 5.0f}, {2, -100.0f}, {3, 1.0f}, {-1, 1.0f}}}, {});
  EXPECT_THAT(logits, ElementsAre(6, 2, -97));
}

TEST(Adjust, PenaltiesFollowTheirFormulas) {
  const std::vector<int32_t> prompt{0, 1}, completion{1, 2, 2};
  const TokenHistory history(prompt, completion);
  std::vector<float> repetition{2, -2, 2, 2};
  adjust(repetition, {.repetition_penalty = 2}, history);
  EXPECT_THAT(repetition, ElementsAre(1, -4, 1, 2)) << "of prompt and completion, once each";
  std::vector<float> presence{2, -2, 2, 2};
  adjust(presence, {.presence_penalty = 0.5}, history);
  EXPECT_THAT(presence, ElementsAre(2, -2.5, 1.5, 2)) << "of the completion";
  std::vector<float> frequency{2, -2, 2, 2};
  adjust(frequency, {.frequency_penalty = -1}, history);
  EXPECT_THAT(frequency, ElementsAre(2, -1, 4, 2)) << "times their number";
}

TEST(Adjust, EndsAreImpossibleUntilThereAreEnoughTokens) {
  const SamplingChoice choice{.temperature = 0, .ends = {1}, .min_tokens = 2};
  TokenHistory history;
  std::vector<float> logits{0, 9, 1};
  EXPECT_EQ(next_token(logits, choice, history, 0).id, 2);
  history.add(2);
  logits = {0, 9, 1};
  EXPECT_EQ(next_token(logits, choice, history, 1).id, 2);
  history.add(2);
  logits = {0, 9, 1};
  EXPECT_EQ(next_token(logits, choice, history, 2).id, 1);
}

TEST(NextToken, IsNoneWhereALogitIsNotANumber) {
  for (const float wrong : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const double temperature : {0.0, 1.0}) {
      std::vector<float> logits(40, 1.0f);
      logits[33] = wrong;
      EXPECT_EQ(next_token(logits, {.temperature = temperature, .logprobs = 3}, {}, 0).id, kNotNumbers) << wrong;
    }
  }
  std::vector<float> logits{-std::numeric_limits<float>::infinity(), 1};
  EXPECT_EQ(next_token(logits, {}, {}, 0).id, 1) << "a token that cannot be";
}

TEST(LogProbabilities, AreThoseOfTheModelWhateverTheChoice) {
  std::vector<float> logits{std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  const SampledToken token = next_token(logits, {.temperature = 0, .logit_bias = {{2, 100.0f}}, .logprobs = 2}, {}, 0);
  EXPECT_EQ(token.id, 2);
  ASSERT_EQ(token.logprobs.size(), 3u);
  EXPECT_EQ(token.logprobs[0].id, 2);
  EXPECT_NEAR(token.logprobs[0].logprob, std::log(0.2), 1e-6);
  EXPECT_EQ(token.logprobs[1].id, 0);
  EXPECT_NEAR(token.logprobs[1].logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(token.logprobs[2].id, 1);
}

TEST(LogProbabilities, AreNotMoreThanThereAreTokensAndNoneUnlessAskedFor) {
  std::vector<float> logits{1, 1};
  EXPECT_EQ(log_probabilities(logits, 1, 20).size(), 3u);
  EXPECT_EQ(log_probabilities(logits, 1, 0).size(), 1u);
  EXPECT_TRUE(next_token(logits, {}, {}, 0).logprobs.empty());
}

}  // namespace
}  // namespace penstock::engine
