#include "text/openai_answer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

namespace penstock::text {
namespace {

using Json = nlohmann::json;

OpenAiWriter writer(OpenAiKind kind, bool include_usage = false) { return {kind, "7", 1700000000, "a\"b", "m:1.0", include_usage}; }

// The JSON of each event.
std::vector<Json> events(const std::string& stream) {
  std::vector<Json> found;
  for (size_t at = 0; at < stream.size();) {
    const size_t end = stream.find("\n\n", at);
    EXPECT_NE(end, std::string::npos);
    EXPECT_EQ(stream.substr(at, 6), "data: ");
    found.push_back(Json::parse(stream.substr(at + 6, end - at - 6)));
    at = end + 2;
  }
  return found;
}

TEST(OpenAiAnswer, AWholeCompletionHasEveryRequiredKey) {
  const OpenAiChoice choices[] = {{"x\n", "stop"}, {"y", "length"}};
  EXPECT_EQ(Json::parse(writer(OpenAiKind::kCompletion).whole(choices, {3, 4})),
            Json::parse(R"({"id": "cmpl-7", "object": "text_completion", "created": 1700000000, "model": "a\"b", "system_fingerprint": "m:1.0",
              "choices": [{"index": 0, "text": "x\n", "logprobs": null, "finish_reason": "stop"},
                          {"index": 1, "text": "y", "logprobs": null, "finish_reason": "length"}],
              "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7, "prompt_tokens_details": {"cached_tokens": 0}}})"));
}

TEST(OpenAiAnswer, AnIdThatTheClientChoseCannotBreakTheJson) {
  const OpenAiWriter odd(OpenAiKind::kChat, "\",\n", 0, "m", "f", false);
  EXPECT_EQ(events(odd.chunk(0, {"x", true})).at(0)["id"], "chatcmpl-\",\n");
}

TEST(OpenAiAnswer, AWholeChatHasAMessage) {
  const OpenAiChoice choices[] = {{"x", "stop"}};
  const Json json = Json::parse(writer(OpenAiKind::kChat).whole(choices, {3, 4}));
  EXPECT_EQ(json["id"], "chatcmpl-7");
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["choices"], Json::parse(R"([{"index": 0, "message": {"role": "assistant", "content": "x", "refusal": null}, "logprobs": null,
                                              "finish_reason": "stop"}])"));
}

TEST(OpenAiAnswer, AStreamedCompletionEndsItsChoiceWithItsLastText) {
  const OpenAiWriter stream = writer(OpenAiKind::kCompletion);
  const Json chunk = events(stream.chunk(1, {"x", true})).at(0);
  EXPECT_EQ(chunk["object"], "text_completion");
  EXPECT_EQ(chunk["choices"], Json::parse(R"([{"index": 1, "text": "x", "logprobs": null, "finish_reason": null}])"));
  EXPECT_FALSE(chunk.contains("usage"));
  EXPECT_EQ(events(stream.last_chunk(1, {"y"}, "stop")).at(0)["choices"],
            Json::parse(R"([{"index": 1, "text": "y", "logprobs": null, "finish_reason": "stop"}])"));
  EXPECT_EQ(stream.end({1, 2}), "data: [DONE]\n\n");
}

TEST(OpenAiAnswer, AStreamedChatNamesTheRoleOnceAndEndsWithAnEmptyDelta) {
  const OpenAiWriter stream = writer(OpenAiKind::kChat, true);
  const Json first = events(stream.chunk(0, {"x", true})).at(0);
  EXPECT_EQ(first["object"], "chat.completion.chunk");
  EXPECT_EQ(first["choices"][0]["delta"], Json::parse(R"({"role": "assistant", "content": "x"})"));
  EXPECT_TRUE(first.at("usage").is_null());
  EXPECT_EQ(events(stream.chunk(0, {"y"})).at(0)["choices"][0]["delta"], Json::parse(R"({"content": "y"})"));

  const auto last = events(stream.last_chunk(0, {"z"}, "length"));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0]["choices"][0]["delta"], Json::parse(R"({"content": "z"})"));
  EXPECT_EQ(last[1]["choices"], Json::parse(R"([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"}])"));
  EXPECT_EQ(events(stream.last_chunk(0, {""}, "stop")).size(), 1u);
  EXPECT_EQ(events(stream.last_chunk(0, {"", true}, "stop")).at(0)["choices"][0]["delta"], Json::parse(R"({"role": "assistant", "content": ""})"));
}

TEST(OpenAiAnswer, AMessageThatOnlyCallsToolsHasNoContent) {
  const OpenAiChoice choices[] = {{"", "tool_calls", "null", {{0, "call_1", "f", "{}"}}}, {"x", "tool_calls", "null", {{0, "call_2", "g", R"({"a": 1})"}}}};
  const Json json = Json::parse(writer(OpenAiKind::kChat).whole(choices, {3, 4}));
  EXPECT_EQ(json["choices"][0]["message"], Json::parse(R"({"role": "assistant", "content": null, "refusal": null,
      "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]})"));
  EXPECT_EQ(json["choices"][1]["message"]["content"], "x");
  EXPECT_EQ(json["choices"][1]["message"]["tool_calls"][0]["function"]["arguments"], R"({"a": 1})");
}

TEST(OpenAiAnswer, AStreamedCallIsNamedOnceAndGoesOnByItsIndex) {
  const OpenAiWriter stream = writer(OpenAiKind::kChat);
  const std::vector<ToolCallPiece> begin = {{1, "call_1", "f", "{"}}, rest = {{1, "", "", "}"}};
  EXPECT_EQ(events(stream.chunk(0, {"", true, "null", begin})).at(0)["choices"][0]["delta"],
            Json::parse(R"({"role": "assistant", "content": null, "tool_calls": [{"index": 1, "id": "call_1", "type": "function",
                            "function": {"name": "f", "arguments": "{"}}]})"));
  const auto last = events(stream.last_chunk(0, {"", false, "null", rest}, "tool_calls"));
  ASSERT_EQ(last.size(), 2u);
  EXPECT_EQ(last[0]["choices"][0]["delta"], Json::parse(R"({"tool_calls": [{"index": 1, "function": {"arguments": "}"}}]})"));
  EXPECT_EQ(last[1]["choices"][0]["finish_reason"], "tool_calls");
}

TEST(OpenAiAnswer, UsageComesInAChunkWithoutChoices) {
  const std::string end = writer(OpenAiKind::kChat, true).end({5, 6});
  const std::string done = "data: [DONE]\n\n";
  ASSERT_EQ(end.substr(end.size() - done.size()), done);
  const Json chunk = events(end.substr(0, end.size() - done.size())).at(0);
  EXPECT_EQ(chunk["choices"], Json::array());
  EXPECT_EQ(chunk["usage"], Json::parse(R"({"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11, "prompt_tokens_details": {"cached_tokens": 0}})"));
}

TEST(OpenAiAnswer, AFailureHasAllFourKeysAndTheStatusThatClientsSortBy) {
  const auto failure = [](Code code, const char* message) { return openai_failure(Error(code, message), "messages"); };
  EXPECT_EQ(Json::parse(failure_json(failure(Code::kInternal, "it \xff broke"))),
            Json::parse("{\"error\": {\"message\": \"it \xEF\xBF\xBD broke\", \"type\": \"server_error\", \"param\": null, \"code\": \"internal_error\"}}"));
  EXPECT_EQ(failure(Code::kNotFound, "").status, 404);
  EXPECT_EQ(failure(Code::kResourceExhausted, "").status, 429);
  EXPECT_EQ(failure(Code::kUnavailable, "").status, 503);
  EXPECT_EQ(failure(Code::kDeadlineExceeded, "").status, 504);
  const OpenAiFailure too_long = failure(Code::kInvalidArgument, "prompt: 5000 tokens; this model takes 4096");
  EXPECT_EQ(too_long.status, 400);
  EXPECT_EQ(too_long.refusal.param, "messages");
  EXPECT_EQ(too_long.refusal.code, "context_length_exceeded");
  const OpenAiFailure unknown_id = failure(Code::kInvalidArgument, "logit_bias: expected token ids from 0 to 511, found 512");
  EXPECT_EQ(unknown_id.refusal.param, "logit_bias");
  EXPECT_EQ(unknown_id.refusal.code, "invalid_value");
  EXPECT_EQ(failure(Code::kInvalidArgument, "prompt: expected token ids from 0 to 511, found 512").refusal.code, "invalid_value");
  EXPECT_EQ(failure(Code::kInvalidArgument, "model 'm': no").refusal.param, "");
  EXPECT_EQ(failure(Code::kInvalidArgument, "roles must alternate").refusal.param, "");
}

}  // namespace
}  // namespace penstock::text
