// Texts that a constraint bounds: valid whatever a random model would say.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>

#include "engine/engine_case_test.h"

namespace penstock::engine {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using Kind = text::TextConstraint::Kind;

constexpr int64_t kPageBytes = 2 * 4 * 4 * 2 * 16 * 8;  // of all four layers

const char* const kSchema = R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer", "minimum": 10, "maximum": 99},
  "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}}, "required": ["name", "age"]})";

class ConstrainedTextsTest : public EngineOnDevice {
 protected:
  struct Answer {
    std::vector<int32_t> ids;
    std::string text;
    GenerationEvent last;
  };
  static Answer wait(Collector& sink) {
    const GenerationEvent last = sink.wait();
    return {sink.ids(), sink.text(), last};
  }
  static Answer alone(PipelineEngine& engine, const text::GenerationRequest& request) {
    const auto sink = std::make_shared<Collector>();
    EXPECT_TRUE(engine.submit(request, sink).ok());
    return wait(*sink);
  }
  static text::GenerationRequest constrained(Kind kind, const std::string& source, int max_tokens, uint64_t seed) {
    text::GenerationRequest request;
    request.prompt = fmt::format("p{}", seed);
    request.sampling.max_tokens = max_tokens;
    request.sampling.seed = seed;
    request.sampling.constraint = {kind, source};
    return request;
  }
  static void expect_person(const std::string& text) {
    const auto person = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(person.is_object()) << text;
    EXPECT_TRUE(person.at("name").is_string()) << text;
    EXPECT_GE(person.at("age").get<int>(), 10) << text;
    EXPECT_LE(person.at("age").get<int>(), 99) << text;
    for (const auto& tag : person.value("tags", nlohmann::json::array())) EXPECT_TRUE(tag == "a" || tag == "b") << text;
  }
};

TEST_P(ConstrainedTextsTest, EveryWholeTextIsValidAndOthersEndAtTheirLimit) {
  for (const int stages : {1, 2}) {
    with_engine(stages, [&](PipelineEngine& engine) {
      int whole = 0;
      for (uint64_t seed = 0; seed < 30; ++seed) {
        auto request = constrained(Kind::kJsonSchema, kSchema, seed % 5 == 0 ? 9 : 90, seed);
        if (seed % 3 == 1) request.sampling.temperature = 0;
        const Answer answer = alone(engine, request);
        ASSERT_NE(answer.last.reason, FinishReason::kError) << answer.last.error.message();
        if (answer.last.reason == FinishReason::kStop) {
          ++whole;
          expect_person(answer.text);
          EXPECT_EQ(answer.last.usage.completion_tokens, static_cast<int>(answer.ids.size()));
        } else {
          EXPECT_TRUE(answer.text.starts_with("{")) << answer.text;
          EXPECT_FALSE(nlohmann::json::accept(answer.text)) << answer.text;
        }
        if (seed % 5 == 0) {
          EXPECT_EQ(answer.last.reason, FinishReason::kLength) << answer.text;
        }
      }
      EXPECT_GT(whole, 5);
    });
  }
}

TEST_P(ConstrainedTextsTest, PatternsAndChoicesHoldAndTheEndIsTakenWhereItMay) {
  with_engine(1, [&](PipelineEngine& engine) {
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const Answer matched = alone(engine, constrained(Kind::kRegex, "[a-z]{2}-[0-9]{3}(é|漢)", 40, seed));
      EXPECT_TRUE(std::regex_match(matched.text, std::regex("[a-z]{2}-[0-9]{3}(é|漢)"))) << matched.text;
      EXPECT_EQ(matched.last.reason, FinishReason::kStop);
      EXPECT_THAT(alone(engine, constrained(Kind::kChoice, R"(["yes", "no", "nobody"])", 40, seed)).text, AnyOf("yes", "no", "nobody"));
      const Answer object = alone(engine, constrained(Kind::kJsonObject, "", 80, seed));
      if (object.last.reason == FinishReason::kStop) {
        EXPECT_TRUE(nlohmann::json::accept(object.text)) << object.text;
      }
    }
    // "no" may end or go on: the end token alone decides.
    auto request = constrained(Kind::kChoice, R"(["no", "nobody"])", 40, 1);
    request.sampling.logit_bias = {{256, 100.0f}};
    const Answer ended = alone(engine, request);
    EXPECT_EQ(ended.text, "no");
    EXPECT_EQ(ended.ids.back(), 256);
    request.sampling.ignore_eos = true;
    const Answer longer = alone(engine, request);
    EXPECT_EQ(longer.text, "nobody");
    EXPECT_EQ(longer.last.reason, FinishReason::kStop);
    request.sampling.ignore_eos = false;
    request.sampling.min_tokens = 3;
    EXPECT_EQ(alone(engine, request).text, "nobody");
  });
}

TEST_P(ConstrainedTextsTest, LogProbabilitiesAreThoseAmongWhatMayCome) {
  with_engine(2, [&](PipelineEngine& engine) {
    auto request = constrained(Kind::kRegex, "[ab]c", 8, 3);
    request.sampling.logprobs = 5;
    const auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine.submit(request, sink).ok());
    (void)wait(*sink);
    const auto logprobs = sink->logprobs();
    ASSERT_EQ(logprobs.size(), 2u);
    ASSERT_EQ(logprobs[0].size(), 3u) << "itself, and the two that may come";
    EXPECT_NEAR(std::exp(logprobs[0][1].logprob) + std::exp(logprobs[0][2].logprob), 1, 1e-5);
    ASSERT_EQ(logprobs[1].size(), 2u);
    EXPECT_NEAR(logprobs[1][0].logprob, 0, 1e-5);
  });
}

// Ranks that share layers: the leader of the last stage chooses.
TEST_P(ConstrainedTextsTest, TensorRanksGiveThemToo) {
  with_tensor_ranks(2, 2, [&](PipelineEngine& engine) {
    auto request = constrained(Kind::kRegex, "[a-z]{2}-[0-9]{3}", 40, 5);
    request.sampling.prompt_logprobs = 1;
    const auto sink = std::make_shared<Collector>();
    ASSERT_TRUE(engine.submit(request, sink).ok());
    const Answer answer = wait(*sink);
    EXPECT_TRUE(std::regex_match(answer.text, std::regex("[a-z]{2}-[0-9]{3}"))) << answer.text;
    EXPECT_EQ(sink->prompt_logprobs().size(), 2u);
  });
}

TEST_P(ConstrainedTextsTest, StopStringsCutThem) {
  with_engine(1, [&](PipelineEngine& engine) {
    auto request = constrained(Kind::kRegex, "[a-z]{3}-[0-9]{3}", 40, 3);
    request.sampling.stop = {"-"};
    const Answer answer = alone(engine, request);
    EXPECT_TRUE(std::regex_match(answer.text, std::regex("[a-z]{3}"))) << answer.text;
    EXPECT_EQ(answer.last.reason, FinishReason::kStop);
  });
}

// What a request gives alone it gives in a crowd, where memory forces some back to be computed again from their tokens.
TEST_P(ConstrainedTextsTest, TheyAreTheSameWhereMemoryForcesRequestsBack) {
  for (const int stages : {1, 2}) {
    with_engine(stages, [&](PipelineEngine& engine) {
      std::vector<text::GenerationRequest> requests;
      for (uint64_t seed = 0; seed < 24; ++seed) {
        requests.push_back(constrained(Kind::kJsonSchema, kSchema, 70, seed));
        if (seed % 4 == 3) requests.back().sampling.constraint = {};
      }
      std::vector<Answer> expected;
      for (const auto& request : requests) expected.push_back(alone(engine, request));
      std::vector<std::shared_ptr<Collector>> sinks;
      for (const auto& request : requests) {
        sinks.push_back(std::make_shared<Collector>());
        ASSERT_TRUE(engine.submit(request, sinks.back()).ok());
      }
      for (size_t i = 0; i < requests.size(); ++i) {
        const Answer answer = wait(*sinks[i]);
        EXPECT_EQ(answer.ids, expected[i].ids) << stages << " stages, request " << i;
        EXPECT_EQ(answer.text, expected[i].text);
        EXPECT_EQ(answer.last.reason, expected[i].last.reason);
      }
      EXPECT_GT(engine.stats()->preemptions, 0);
    }, {}, 10 * kPageBytes / stages);
  }
}

TEST_P(ConstrainedTextsTest, WhatCannotBeIsToldToItsRequestAlone) {
  with_engine(1, [&](PipelineEngine& engine) {
    const auto refused = engine.submit(constrained(Kind::kRegex, "(a", 5, 1), std::make_shared<Collector>());
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code(), Code::kInvalidArgument);
    EXPECT_THAT(refused.error().message(), HasSubstr("constraint: a group without its ')'"));
    // In too many places at once: given up in mid-text.
    const Answer crowded = alone(engine, constrained(Kind::kRegex, "(.?){9000}", 90, 1));
    EXPECT_EQ(crowded.last.reason, FinishReason::kError);
    EXPECT_EQ(crowded.last.error.code(), Code::kInvalidArgument);
    EXPECT_THAT(crowded.last.error.message(), HasSubstr("no token of this model fits its constraint here"));
    expect_person(alone(engine, constrained(Kind::kJsonSchema, kSchema, 90, 1)).text);
  });
}

INSTANTIATE_TEST_SUITE_P(On, ConstrainedTextsTest, testing::Values("cpu", "cuda"), name_of_device);

}  // namespace
}  // namespace penstock::engine
