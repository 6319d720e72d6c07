#include "text/openai_logprobs.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

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

TEST(OpenAiLogprobs, TokensOfTheSameBytesAreToldApart) {
  const std::vector<TokenChoices> tokens = {{{5, -1.5, "A"}, {9, -0.25, "A"}, {5, -1.5, "A"}, {6, -2.0, "b"}, {7, -3.0, "b"}}};
  int64_t offset = 0;
  EXPECT_EQ(Json::parse(openai_logprobs(OpenAiKind::kCompletion, tokens, offset)).at("top_logprobs"),
            Json::parse(R"([{"A": -1.5, "bytes:\\x41": -0.25, "b": -2.0, "bytes:\\x62": -3.0}])"));
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

TEST(OpenAiLogprobs, ThoseOfAPromptAreByIdWithTheirRanks) {
  const std::vector<TokenChoices> tokens = {{{7, std::nan(""), "<s>"}}, {{5, -3, "x"}, {9, -0.5, "a"}, {4, -1, "b"}}, {{4, -1, "b"}, {9, -0.5, "a"}, {4, -1, "b"}}};
  EXPECT_EQ(nlohmann::json::parse(prompt_logprobs_json(tokens, 1)), nlohmann::json::parse(R"([null,
      {"5": {"logprob": -3.0, "rank": null, "decoded_token": "x"}, "9": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}},
      {"4": {"logprob": -1.0, "rank": 2, "decoded_token": "b"}, "9": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}])"));
  EXPECT_EQ(nlohmann::json::parse(prompt_logprobs_json(tokens, 0))[1].size(), 1u);
}

}  // namespace
}  // namespace penstock::text
