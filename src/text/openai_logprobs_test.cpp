#include "text/openai_logprobs.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace penstock::text {
namespace {

using Json = nlohmann::json;

const std::vector<TokenChoices> kTokens = {
    {{5, -0.5, "é"}, {6, -0.25, "b"}, {5, -0.5, "é"}},
    {{7, -2.0, "\xE2\x82"}, {6, -1.0, "b"}, {8, -std::numeric_limits<double>::infinity(), "c"}},
    {{9, -3.0, "\xAC!"}},
};

TEST(OpenAiLogprobs, OfAChatAreAListOfTokensWithTheirBytes) {
  int64_t offset = 0;
  EXPECT_EQ(Json::parse(openai_logprobs(OpenAiKind::kChat, kTokens, offset)), Json::parse(R"({"content": [
      {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": [
        {"token": "b", "logprob": -0.25, "bytes": [98]}, {"token": "é", "logprob": -0.5, "bytes": [195, 169]}]},
      {"token": "\uFFFD", "logprob": -2.0, "bytes": [226, 130], "top_logprobs": [
        {"token": "b", "logprob": -1.0, "bytes": [98]}, {"token": "c", "logprob": -9999.0, "bytes": [99]}]},
      {"token": "\uFFFD!", "logprob": -3.0, "bytes": [172, 33], "top_logprobs": []}], "refusal": null})"));
}

TEST(OpenAiLogprobs, OfACompletionAreFourListsWhoseOffsetsGoOn) {
  int64_t offset = 10;
  EXPECT_EQ(Json::parse(openai_logprobs(OpenAiKind::kCompletion, kTokens, offset)), Json::parse(R"({
      "tokens": ["é", "bytes:\\xe2\\x82", "bytes:\\xac\\x21"], "token_logprobs": [-0.5, -2.0, -3.0],
      "top_logprobs": [{"é": -0.5, "b": -0.25}, {"bytes:\\xe2\\x82": -2.0, "b": -1.0, "c": -9999.0}, {"bytes:\\xac\\x21": -3.0}],
      "text_offset": [10, 11, 12]})"));
  EXPECT_EQ(offset, 13);
}

TEST(OpenAiLogprobs, NothingPredictsThePromptsFirstToken) {
  const std::vector<TokenChoices> prompt = {{{1, std::numeric_limits<double>::quiet_NaN(), "<s>"}}, {{5, -0.5, "é"}}};
  int64_t offset = -3;
  EXPECT_EQ(Json::parse(openai_logprobs(OpenAiKind::kCompletion, prompt, offset)), Json::parse(R"({
      "tokens": ["<s>", "é"], "token_logprobs": [null, -0.5], "top_logprobs": [null, {"é": -0.5}], "text_offset": [0, 0]})"));
  EXPECT_EQ(offset, 1);
}

TEST(OpenAiLogprobs, OfNoTokensAreEmptyLists) {
  int64_t offset = 0;
  EXPECT_EQ(Json::parse(openai_logprobs(OpenAiKind::kChat, {}, offset)), Json::parse(R"({"content": [], "refusal": null})"));
}

}  // namespace
}  // namespace penstock::text
