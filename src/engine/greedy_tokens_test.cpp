#include "engine/greedy_tokens.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tensor/device.h"

namespace penstock::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class GreedyTokens : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (GetParam() == std::string("cuda") && tensor::num_gpus() == 0) GTEST_SKIP() << "no GPU";
  }
};

// Random rows, and those that are hard: equal logits, impossible tokens, what is no number.
TEST_P(GreedyTokens, AreThoseOfTheSampler) {
  constexpr int64_t kWidth = 5000;
  at::manual_seed(5);
  at::Tensor logits = at::randn({8, kWidth});
  logits[1].fill_(0.5f);
  logits[2][kWidth - 1] = 100;
  logits[2][77] = 100;
  logits[3].fill_(-kInfinity);
  logits[3][4000] = -3;
  logits[4][9] = NAN;
  logits[5][9] = kInfinity;
  logits[6].fill_(-kInfinity);
  SamplingChoice choice;
  choice.temperature = 0;
  const std::vector<SampledToken> got = greedy_tokens(logits.to(tensor::find_device(GetParam(), 0).value()));
  ASSERT_EQ(got.size(), 8u);
  EXPECT_EQ(got[1].id, 0) << "of equal ones the lowest id";
  EXPECT_EQ(got[4].id, kNotNumbers);
  for (int64_t row = 0; row < 8; ++row) {
    at::Tensor copy = logits[row].clone();
    const SampledToken expected = next_token({copy.data_ptr<float>(), static_cast<size_t>(kWidth)}, choice, {}, 0);
    EXPECT_EQ(got[static_cast<size_t>(row)].id, expected.id) << "row " << row;
    EXPECT_TRUE(got[static_cast<size_t>(row)].logprobs.empty());
  }
}

INSTANTIATE_TEST_SUITE_P(On, GreedyTokens, testing::Values("cpu", "cuda"), [](const auto& info) { return std::string(info.param); });

TEST(PlainGreedy, IsWhatNeitherChangesTheLogitsNorAsksForThem) {
  SamplingChoice plain;
  plain.temperature = 0;
  plain.top_k = 5;  // does not matter to it
  EXPECT_TRUE(is_plain_greedy(plain, {}));
  const auto with = [&](const auto& change) {
    SamplingChoice choice = plain;
    change(choice);
    return is_plain_greedy(choice, {});
  };
  EXPECT_FALSE(with([](SamplingChoice& c) { c.temperature = 0.1; }));
  EXPECT_FALSE(with([](SamplingChoice& c) { c.logprobs = 0; }));
  EXPECT_FALSE(with([](SamplingChoice& c) { c.logit_bias = {{1, 1.0f}}; }));
  EXPECT_FALSE(with([](SamplingChoice& c) { c.repetition_penalty = 1.1; }));
  EXPECT_FALSE(with([](SamplingChoice& c) { c.presence_penalty = 0.1; }));
  EXPECT_FALSE(with([](SamplingChoice& c) { c.frequency_penalty = 0.1; }));
  plain.min_tokens = 1;
  plain.ends = {3};
  EXPECT_FALSE(is_plain_greedy(plain, {}));
  const std::vector<int32_t> one = {7};
  EXPECT_TRUE(is_plain_greedy(plain, TokenHistory({}, one)));
}

}  // namespace
}  // namespace penstock::engine
