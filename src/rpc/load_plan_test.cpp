#include "rpc/load_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace penstock::rpc {
namespace {

using testing::HasSubstr;

TEST(LoadPlan, RandomPromptsAreAFunctionOfTheirSeedAndWithinTheVocabulary) {
  const auto prompts = random_prompts(20, 50, 10, 7, 3), same = random_prompts(20, 50, 10, 7, 3), others = random_prompts(20, 50, 10, 7, 4);
  ASSERT_EQ(prompts.size(), 20u);
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ(prompts[i].ids, same[i].ids);
    EXPECT_NE(prompts[i].ids, others[i].ids);
    EXPECT_EQ(prompts[i].ids.size(), 50u);
    EXPECT_EQ(prompts[i].max_tokens, 7);
    EXPECT_GE(*std::min_element(prompts[i].ids.begin(), prompts[i].ids.end()), 0);
    EXPECT_LT(*std::max_element(prompts[i].ids.begin(), prompts[i].ids.end()), 10);
    EXPECT_TRUE(i == 0 || prompts[i].ids != prompts[i - 1].ids) << "a cache would answer it";
  }
}

TEST(LoadPlan, LinesOfAFileArePromptsFromTheFirstAgainAfterTheLast) {
  const auto prompts = prompts_of_file("one\r\n\n{\"prompt\": \"t w o\", \"max_tokens\": 3}\nthree", "f", 4, 9).value();
  ASSERT_EQ(prompts.size(), 4u);
  EXPECT_EQ(prompts[0].text, "one");
  EXPECT_EQ(prompts[0].max_tokens, 9);
  EXPECT_EQ(prompts[1].text, "t w o");
  EXPECT_EQ(prompts[1].max_tokens, 3);
  EXPECT_EQ(prompts[2].text, "three");
  EXPECT_EQ(prompts[3].text, "one");
}

TEST(LoadPlan, ALineThatIsNoPromptIsNamed) {
  const auto refusal = [](std::string_view content) { return prompts_of_file(content, "f", 1, 9).error().message(); };
  EXPECT_THAT(refusal("\n\n"), HasSubstr("f: expected a prompt"));
  EXPECT_THAT(refusal("a\n{\"promt\": 1}"), HasSubstr("f:2: expected a JSON object"));
  EXPECT_THAT(refusal("{\"prompt\": 1}"), HasSubstr("f:1"));
  EXPECT_THAT(refusal("{\"prompt\": \"a\", \"max_tokens\": 0}"), HasSubstr("found 0"));
  EXPECT_THAT(refusal("{broken"), HasSubstr("f:1"));
  EXPECT_THAT(refusal("\xff"), HasSubstr("UTF-8"));
}

TEST(LoadPlan, ArrivalsAreAPoissonProcessOfTheRate) {
  const auto times = arrival_seconds(20000, 50, 1);
  EXPECT_EQ(times[0], 0);
  EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
  EXPECT_NEAR(times.back() / 20000, 1.0 / 50, 0.001);
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  const auto longer = std::count_if(gaps.begin(), gaps.end(), [](double gap) { return gap > 1.0 / 50; });
  EXPECT_NEAR(static_cast<double>(longer) / 20000, 0.368, 0.02) << "e^-1 of an exponential distribution is above its mean";
  EXPECT_EQ(arrival_seconds(100, 50, 1)[99], times[99]);
  EXPECT_NE(arrival_seconds(100, 50, 2)[99], times[99]);
  EXPECT_EQ(arrival_seconds(3, 0, 1), (std::vector<double>{0, 0, 0}));
}

}  // namespace
}  // namespace penstock::rpc
