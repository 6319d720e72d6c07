#include "engine/step_plan.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace penstock::engine {
namespace {

StepPlan example() {
  SequenceStart start;
  start.choice = {.temperature = 0.7, .top_k = 5, .top_p = 0.9, .min_p = 0.1, .repetition_penalty = 1.2, .presence_penalty = -0.5,
                  .frequency_penalty = 0.25, .logit_bias = {{3, -100.0f}, {9, 2.5f}}, .ends = {2, 7}, .min_tokens = 4, .seed = 0xFFFFFFFFFFFFFFFFull,
                  .logprobs = 2, .constraint = {text::TextConstraint::Kind::kRegex, "nine bytes"}};
  start.prompt = {1, 2, 3};
  start.completion = {8};
  StepPlan plan{StepKind::kCompute, {}};
  plan.sequences.push_back({.slot = 3, .start = 10, .count = 1, .samples = true, .logprobs = 2, .pages = {5, 6}, .begins = start});
  plan.sequences.push_back({.slot = 0, .start = 0, .count = 64, .targets = {4, 5}, .first_target = 62, .alternatives = 1});
  plan.sequences.push_back({.slot = 1, .start = 7, .count = 1, .samples = true});
  return plan;
}

TEST(StepPlan, SurvivesTheWire) {
  const StepPlan plan = example(), again = decode(encode(plan), 4);
  EXPECT_EQ(encode(again), encode(plan));
  EXPECT_EQ(again.rows(), 66);
  EXPECT_EQ(again.answers(), 3);
  const SamplingChoice& choice = again.sequences[0].begins->choice;
  EXPECT_EQ(choice.seed, 0xFFFFFFFFFFFFFFFFull);
  EXPECT_EQ(choice.min_p, 0.1);
  EXPECT_EQ(choice.logit_bias, (std::vector<std::pair<int32_t, float>>{{3, -100.0f}, {9, 2.5f}}));
  EXPECT_TRUE(choice.constraint == plan.sequences[0].begins->choice.constraint);
  EXPECT_EQ(again.sequences[1].targets, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(again.sequences[1].first_target, 62);
  EXPECT_EQ(again.sequences[0].pages, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(again.sequences[0].begins->completion, std::vector<int32_t>{8});
}

TEST(StepPlan, NumbersThatAreNoneAreRefusedWhereverTheyAreBroken) {
  const auto whole = encode(example());
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_THROW((void)decode(std::span(whole).first(length), 4), Error) << "cut to " << length;
    auto cut = whole;
    cut.resize(length);
    if (length > 0) cut[0] = static_cast<int64_t>(length);
    EXPECT_THROW((void)decode(cut, 4), Error) << "cut to " << length << ", and it says so";
  }
  EXPECT_THROW((void)decode(whole, 3), Error) << "slot 3";
  auto longer = whole;
  longer.push_back(0);
  longer[0] = static_cast<int64_t>(longer.size());
  EXPECT_THROW((void)decode(longer, 4), Error);
}

TEST(SampledTokens, SurviveTheWireAlsoWhereThereAreFewerAlternativesThanAskedFor) {
  const StepPlan plan = example();
  const std::vector<SampledToken> tokens{
      {5, {{5, -0.5f}, {6, -1.5f}}}, {0, {}, false, {{{4, -2.5f}, {1, -0.5f}}, {{5, -3.5f}}}}, {4, {}, /*completes=*/true}};
  const auto numbers = encode_samples(plan, tokens);
  EXPECT_EQ(numbers.size(), encoded_samples_size(plan));
  const auto again = decode_samples(plan, numbers);
  ASSERT_EQ(again.size(), 3u);
  EXPECT_EQ(again[0].id, 5);
  ASSERT_EQ(again[0].logprobs.size(), 2u);
  EXPECT_EQ(again[0].logprobs[1].id, 6);
  EXPECT_EQ(again[0].logprobs[1].logprob, -1.5f);
  EXPECT_FALSE(again[0].completes);
  ASSERT_EQ(again[1].prompt.size(), 2u);
  ASSERT_EQ(again[1].prompt[0].size(), 2u);
  EXPECT_EQ(again[1].prompt[0][0].logprob, -2.5f);
  ASSERT_EQ(again[1].prompt[1].size(), 1u);
  EXPECT_EQ(again[1].prompt[1][0].id, 5);
  EXPECT_EQ(again[2].id, 4);
  EXPECT_TRUE(again[2].logprobs.empty());
  EXPECT_TRUE(again[2].completes);
  const auto none = decode_samples(plan, encode_samples(plan, {{kNoFittingToken}, tokens[1], {0, {}, true}}));
  EXPECT_EQ(none[0].id, kNoFittingToken);
  EXPECT_FALSE(none[0].completes);
  EXPECT_EQ(none[2].id, 0);
  EXPECT_TRUE(none[2].completes);
}

}  // namespace
}  // namespace penstock::engine
