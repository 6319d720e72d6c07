#include "text/openai_tokens.h"

#include <gtest/gtest.h>

namespace penstock::text {
namespace {

OpenAiRefusal tokenize_refusal(const char* body) { return std::get<OpenAiRefusal>(parse_tokenize_request(body)); }
OpenAiRefusal detokenize_refusal(const char* body) { return std::get<OpenAiRefusal>(parse_detokenize_request(body)); }

TEST(OpenAiTokens, ATextOrAConversationIsTokenized) {
  const auto text = std::get<TokenizeCall>(parse_tokenize_request(R"({"model": "m", "prompt": "p", "add_special_tokens": false})"));
  EXPECT_EQ(text.model, "m");
  EXPECT_EQ(text.prompt, "p");
  EXPECT_FALSE(text.add_special_tokens);
  EXPECT_TRUE(std::get<TokenizeCall>(parse_tokenize_request(R"({"model": "m", "prompt": ""})")).add_special_tokens);
  const auto chat = std::get<OpenAiCall>(parse_tokenize_request(R"({"model": "m", "messages": [{"role": "user", "content": "x"}]})"));
  EXPECT_EQ(chat.messages, R"([{"role":"user","content":"x"}])");
}

TEST(OpenAiTokens, NamesTheFieldThatIsWrong) {
  EXPECT_EQ(tokenize_refusal(R"({"model": "m"})").message, "prompt: is missing");
  EXPECT_EQ(tokenize_refusal(R"({"prompt": "p"})").param, "model");
  EXPECT_EQ(tokenize_refusal(R"({"model": "m", "prompt": ["p"]})").param, "prompt");
  EXPECT_EQ(tokenize_refusal(R"({"model": "m", "prompt": "p", "add_special_tokens": 1})").param, "add_special_tokens");
  EXPECT_EQ(tokenize_refusal(R"({"model": "m", "prompt": "p", "return_token_strs": true})").code, "unsupported_value");
  EXPECT_EQ(tokenize_refusal(R"({"model": "m", "prompt": "p", "specials": true})").code, "unknown_parameter");
  EXPECT_EQ(tokenize_refusal(R"({"model": "m", "messages": []})").param, "messages");
  EXPECT_EQ(tokenize_refusal("7").code, "invalid_json");
}

TEST(OpenAiTokens, TokensAreIds) {
  EXPECT_EQ(std::get<DetokenizeCall>(parse_detokenize_request(R"({"model": "m", "tokens": [1, 2]})")).tokens, (std::vector<int32_t>{1, 2}));
  for (const char* bad : {R"({"model": "m", "tokens": [-1]})", R"({"model": "m", "tokens": "1"})", R"({"model": "m", "tokens": [1.5]})",
                          R"({"model": "m", "tokens": [4294967296]})", R"({"model": "m"})"}) {
    EXPECT_EQ(detokenize_refusal(bad).param, "tokens") << bad;
  }
}

TEST(OpenAiTokens, AreCountedAndTheModelsLengthIsToldWhereItIsKnown) {
  EXPECT_EQ(tokenized_json(std::vector<int32_t>{5, 6}, 64), R"({"count":2,"max_model_len":64,"tokens":[5,6],"token_strs":null})");
  EXPECT_EQ(tokenized_json({}, 0), R"({"count":0,"max_model_len":null,"tokens":[],"token_strs":null})");
}

}  // namespace
}  // namespace penstock::text
