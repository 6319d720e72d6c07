// What rounding the weights costs, on a small model that has learnt something; needs ../shared/data.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/lone_steps.h"
#include "engine/stage_runner.h"
#include "text/tokenizer.h"

namespace penstock::engine {
namespace {

std::filesystem::path stories() { return std::filesystem::path(PENSTOCK_SOURCE_DIR) / "../shared/data/models/stories260K/hf"; }

// Written for this test, in the manner of the stories that the model has read.
constexpr const char* kStories[] = {
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends. One day, she saw a big red ball "
    "under a tree. Lily wanted to play with it, but a dog was sleeping next to the ball. She was scared. Her mom said, \"Do not be scared, Lily. The dog "
    "is nice.\" Lily walked to the dog and said, \"Hello, dog. Can I play with your ball?\" The dog opened its eyes and was very happy. They played "
    "together all day. When the sun went down, Lily went home with her mom. She was tired but happy.",
    "Tom was a small boy who had a toy car. The car was blue and very fast. One day, Tom took the car to the garden and lost it. He looked and looked, but "
    "he could not find it. Tom was sad and started to cry. A little bird heard him and came down from the tree. \"Why are you sad?\" asked the bird. "
    "\"I lost my car,\" said Tom. The bird flew up high and saw the car in the grass. \"It is over there!\" said the bird. Tom ran and found his car. He "
    "said, \"Thank you, bird. You are a good friend.\" The bird was happy to help.",
};

class QuantizedStories : public testing::Test {
 protected:
  static constexpr int kTokens = 512, kPages = kTokens / kPageTokens;
  void SetUp() override {
    if (!std::filesystem::exists(stories())) GTEST_SKIP() << "no " << stories();
  }
  static StageOptions options(int stage, int stages, model::Quantization quantization) {
    StageOptions all;
    all.model = stories();
    all.stage = stage;
    all.num_stages = stages;
    all.max_sequences = 1;
    all.max_sequence_tokens = kTokens;
    all.quantization = quantization;
    return all;
  }
  // Mean negative log probability of each token after the first, in `stages` stages.
  static double loss(model::Quantization quantization, int stages = 1) {
    const text::Tokenizer tokenizer = text::Tokenizer::load(stories()).value();
    std::vector<std::unique_ptr<StageRunner>> runners;
    for (int i = 0; i < stages; ++i) {
      runners.push_back(std::make_unique<StageRunner>(options(i, stages, quantization)));
      runners.back()->make_cache(kPages);
    }
    double sum = 0;
    int count = 0;
    for (const char* story : kStories) {
      const auto ids = tokenizer.encode(story, {.add_special_tokens = true});
      for (size_t i = 0; i + 1 < ids.size(); ++i, ++count) {
        at::Tensor x = at::tensor(std::vector<int64_t>{ids[i]}, at::kLong);
        for (auto& runner : runners) x = runner->forward({StepKind::kCompute, {lone_step(0, static_cast<int>(i), 1, true, 1, kPages)}}, x);
        sum -= at::log_softmax(x[0].to(at::kDouble), 0)[ids[i + 1]].item<double>();
      }
    }
    return sum / count;
  }
};

TEST_F(QuantizedStories, PerplexityStaysCloseToThatOfFloatingPoint) {
  const double exact = loss(model::Quantization::kNone);
  const double int8 = loss(model::Quantization::kInt8), int4 = loss(model::Quantization::kInt4);
  std::printf("perplexity: fp32 %.4f, int8 %.4f (%+.2f %%), int4 %.4f (%+.2f %%)\n", std::exp(exact), std::exp(int8), 100 * std::expm1(int8 - exact),
              std::exp(int4), 100 * std::expm1(int4 - exact));
  EXPECT_LT(std::exp(exact), 6) << "the model should know such stories";
  EXPECT_NE(int8, exact);
  EXPECT_LT(std::abs(std::expm1(int8 - exact)), 0.005);
  EXPECT_LT(std::abs(std::expm1(int4 - exact)), 0.05) << "a model of 64 columns has two blocks in a row: larger ones lose less";
}

TEST_F(QuantizedStories, StagesGiveWhatOneProcessGives) {
  EXPECT_EQ(loss(model::Quantization::kInt8, 2), loss(model::Quantization::kInt8));
}

TEST_F(QuantizedStories, HoldTheirWeightsInAQuarterOfTheMemory) {
  const auto bytes = [](model::Quantization quantization) {
    return static_cast<double>(StageRunner(options(0, 1, quantization)).weight_bytes());
  };
  const double exact = bytes(model::Quantization::kNone);
  EXPECT_LT(bytes(model::Quantization::kInt8) / exact, 0.30);
  EXPECT_LT(bytes(model::Quantization::kInt4) / bytes(model::Quantization::kInt8), 0.70);
}

}  // namespace
}  // namespace penstock::engine
