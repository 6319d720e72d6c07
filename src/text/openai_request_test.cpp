#include "text/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <climits>
#include <nlohmann/json.hpp>

namespace penstock::text {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

// Bodies with the fields that are required, and one member more.
std::string completion_with(const std::string& member) { return R"({"model": "m", "prompt": "p", )" + member + "}"; }
std::string chat_with(const std::string& member) { return R"({"model": "m", "messages": [{"role": "user", "content": "hi"}], )" + member + "}"; }

OpenAiCall accepted(const OpenAiBody& body) {
  if (const auto* refusal = std::get_if<OpenAiRefusal>(&body)) {
    ADD_FAILURE() << refusal->message;
    return {};
  }
  return std::get<OpenAiCall>(body);
}
OpenAiCall completion(const std::string& body) { return accepted(parse_completion_request(body)); }
OpenAiCall chat(const std::string& body) { return accepted(parse_chat_request(body)); }

OpenAiRefusal refused(const OpenAiBody& body) {
  if (const auto* refusal = std::get_if<OpenAiRefusal>(&body)) return *refusal;
  return {"accepted", "", ""};
}
std::string refusal(const std::string& member) { return refused(parse_completion_request(completion_with(member))).message; }
std::string chat_refusal(const std::string& member) { return refused(parse_chat_request(chat_with(member))).message; }

TEST(OpenAiRequest, ACompletionHasOpenAisDefaults) {
  const OpenAiCall call = completion(R"({"model": "m", "prompt": "p"})");
  EXPECT_EQ(call.model, "m");
  EXPECT_THAT(call.prompts, ElementsAre("p"));
  EXPECT_EQ(call.sampling.max_tokens, 16);
  EXPECT_EQ(call.sampling.temperature, 1);
  EXPECT_EQ(call.sampling.top_p, 1);
  EXPECT_EQ(call.sampling.seed, std::nullopt);
  EXPECT_EQ(call.num_choices, 1);
  EXPECT_FALSE(call.stream || call.include_usage || call.echo || call.prompt_only);
}

TEST(OpenAiRequest, AChatGoesOnToTheEndOfTheContext) {
  EXPECT_EQ(chat(chat_with(R"("n": 1)")).sampling.max_tokens, INT_MAX);
  EXPECT_EQ(chat(chat_with(R"("max_tokens": 5)")).sampling.max_tokens, 5);
  EXPECT_EQ(chat(chat_with(R"("max_tokens": 5, "max_completion_tokens": 6)")).sampling.max_tokens, 6);
}

TEST(OpenAiRequest, HonoursWhatSteersTheGeneration) {
  const OpenAiCall call = completion(completion_with(
      R"("max_tokens": 7, "temperature": 0.5, "top_p": 0.25, "top_k": 3, "seed": -1, "stop": ["a", "b"], "n": 2, "stream": true,
         "stream_options": {"include_usage": true, "include_obfuscation": false}, "echo": true, "best_of": 2, "ignore_eos": true)"));
  EXPECT_EQ(call.sampling.max_tokens, 7);
  EXPECT_EQ(call.sampling.temperature, 0.5);
  EXPECT_EQ(call.sampling.top_p, 0.25);
  EXPECT_EQ(call.sampling.top_k, 3);
  EXPECT_EQ(call.sampling.seed, UINT64_MAX);
  EXPECT_THAT(call.sampling.stop, ElementsAre("a", "b"));
  EXPECT_EQ(call.num_choices, 2);
  EXPECT_TRUE(call.stream && call.include_usage && call.echo && call.sampling.ignore_eos);
}

TEST(OpenAiRequest, ATopPOf0IsTheMostLikelyToken) {
  const OpenAiCall call = completion(completion_with(R"("top_p": 0)"));
  EXPECT_EQ(call.sampling.top_p, 1);
  EXPECT_EQ(call.sampling.top_k, 1);
  EXPECT_EQ(completion(completion_with(R"("top_k": -1)")).sampling.top_k, 0);
}

TEST(OpenAiRequest, NoTokensAreOneThatIsNotShown) {
  const OpenAiCall call = completion(completion_with(R"("max_tokens": 0)"));
  EXPECT_TRUE(call.prompt_only);
  EXPECT_EQ(call.sampling.max_tokens, 1);
}

TEST(OpenAiRequest, TakesPromptsOfEveryShape) {
  const auto prompt = [](const std::string& value) { return completion(R"({"model": "m", "prompt": )" + value + "}"); };
  EXPECT_THAT(prompt(R"(["a", "b"])").prompts, ElementsAre("a", "b"));
  EXPECT_THAT(prompt("[1, 2]").prompt_ids, ElementsAre(ElementsAre(1, 2)));
  EXPECT_THAT(prompt("[[1], [2, 3]]").prompt_ids, ElementsAre(ElementsAre(1), ElementsAre(2, 3)));
  EXPECT_THAT(prompt("[[1], [2, 3]]").prompts, IsEmpty());
  for (const char* bad : {"\"\"", "[]", "[[]]", "[\"\"]", "[1, \"a\"]", "[\"a\", [1]]", "[[1], 2]", "[-1]", "[1.5]", "[3000000000]", "7", "{}", "[null]"}) {
    EXPECT_THAT(refused(parse_completion_request(R"({"model": "m", "prompt": )" + std::string(bad) + "}")),
                AllOf(Field(&OpenAiRefusal::param, "prompt"), Field(&OpenAiRefusal::code, "invalid_value")))
        << bad;
  }
}

TEST(OpenAiRequest, APromptIsNotRepeatedInAMessage) {
  const OpenAiRefusal refusal = refused(parse_completion_request(R"({"model": "m", "prompt": ")" + std::string((1 << 20) + 1, 'x') + "\"}"));
  EXPECT_THAT(refusal.message, HasSubstr("found a text of 1048577 bytes"));
}

TEST(OpenAiRequest, NamesTheFieldThatIsOutOfRangeOrOfTheWrongType) {
  EXPECT_EQ(refusal(R"("temperature": 2.1)"), "temperature: expected a number from 0 to 2, found 2.1");
  EXPECT_EQ(refusal(R"("temperature": -3)"), "temperature: expected a number from 0 to 2, found -3");
  EXPECT_EQ(refusal(R"("temperature": "hot")"), "temperature: expected a number from 0 to 2, found \"hot\"");
  EXPECT_EQ(refusal(R"("top_p": 1.5)"), "top_p: expected a number from 0 to 1, found 1.5");
  EXPECT_EQ(refusal(R"("max_tokens": -1)"), "max_tokens: expected an integer from 0 to 2147483647, found -1");
  EXPECT_EQ(refusal(R"("max_tokens": 1e3)"), "max_tokens: expected an integer from 0 to 2147483647, found 1000.0");
  EXPECT_EQ(refusal(R"("max_tokens": 99999999999)"), "max_tokens: expected an integer from 0 to 2147483647, found 99999999999");
  EXPECT_EQ(chat_refusal(R"("max_tokens": 0)"), "max_tokens: expected an integer from 1 to 2147483647, found 0");
  EXPECT_EQ(refusal(R"("n": 0)"), "n: expected an integer from 1 to 128, found 0");
  EXPECT_EQ(refusal(R"("n": 129)"), "n: expected an integer from 1 to 128, found 129");
  EXPECT_EQ(refusal(R"("stop": ["a", "b", "c", "d", "e"])"), "stop: expected a text or a list of at most 4 texts, each 1 to 256 bytes, found a list");
  EXPECT_EQ(refusal(R"("best_of": 21)"), "best_of: expected an integer from 0 to 20, found 21");
  EXPECT_EQ(refusal(R"("presence_penalty": 3)"), "presence_penalty: expected a number from -2 to 2, found 3");
  EXPECT_EQ(refusal(R"("logprobs": 6)"), "logprobs: expected an integer from 0 to 5, found 6");
  EXPECT_EQ(chat_refusal(R"("top_logprobs": 21)"), "top_logprobs: expected an integer from 0 to 20, found 21");
  EXPECT_EQ(refusal(R"("seed": 1.5)"), "seed: expected an integer from -2^63 to 2^64 - 1, found 1.5");
  EXPECT_EQ(refusal(R"("stream": 1)"), "stream: expected true or false, found 1");
  EXPECT_EQ(refused(parse_completion_request(completion_with(R"("temperature": 9)"))).param, "temperature");
}

TEST(OpenAiRequest, ReadsWhatSteersTheChoiceOfTokens) {
  const OpenAiCall call = completion(completion_with(
      R"("presence_penalty": -0.5, "frequency_penalty": 2, "repetition_penalty": 1.5, "min_p": 0.1, "min_tokens": 3, "logprobs": 0,
         "logit_bias": {"5": 1, "70": -100}, "stop_token_ids": [1, 2], "cache_salt": "s")"));
  EXPECT_EQ(call.sampling.presence_penalty, -0.5);
  EXPECT_EQ(call.sampling.frequency_penalty, 2);
  EXPECT_EQ(call.sampling.repetition_penalty, 1.5);
  EXPECT_EQ(call.sampling.min_p, 0.1);
  EXPECT_EQ(call.sampling.min_tokens, 3);
  EXPECT_EQ(call.sampling.logprobs, 0);
  EXPECT_EQ(call.sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{5, 1.0f}, {70, -100.0f}}));
  EXPECT_EQ(call.sampling.stop_token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(call.cache_salt, "s");
  EXPECT_EQ(chat(chat_with(R"("logprobs": true, "top_logprobs": 4)")).sampling.logprobs, 4);
  EXPECT_EQ(chat(chat_with(R"("logprobs": true)")).sampling.logprobs, 0);
  EXPECT_EQ(chat(chat_with(R"("logprobs": false, "top_logprobs": 0)")).sampling.logprobs, std::nullopt);
}

TEST(OpenAiRequest, LogProbabilitiesOfThePromptMayBeAskedForTwice) {
  const OpenAiCall call = completion(completion_with(R"("prompt_logprobs": 2, "logprobs": 4, "echo": true)"));
  EXPECT_EQ(call.prompt_logprobs, 2);
  EXPECT_EQ(call.sampling.prompt_logprobs, 4);
  EXPECT_EQ(chat(chat_with(R"("prompt_logprobs": 0)")).sampling.prompt_logprobs, 0);
  EXPECT_EQ(refusal(R"("prompt_logprobs": 21)"), "prompt_logprobs: expected an integer from 0 to 20, found 21");
  EXPECT_EQ(refusal(R"("prompt_logprobs": -1)"), "prompt_logprobs: expected an integer from 0 to 20, found -1");
  EXPECT_EQ(refusal(R"("prompt_logprobs": 1, "stream": true)"), "prompt_logprobs: does not go with \"stream\": true");
}

TEST(OpenAiRequest, NamesTheFieldOfTokensThatIsWrong) {
  EXPECT_EQ(refusal(R"("logit_bias": {"5": 101})"), "logit_bias: expected an object of at most 1024 token ids and numbers from -100 to 100, found an object");
  for (const char* bad : {R"({"x": 1})", R"({"-1": 1})", R"({"5 ": 1})", R"({"5": "1"})", R"({"99999999999": 1})", "[]"}) {
    EXPECT_THAT(refusal(std::string("\"logit_bias\": ") + bad), HasSubstr("logit_bias: expected")) << bad;
  }
  EXPECT_THAT(refusal(R"("stop_token_ids": [-1])"), HasSubstr("stop_token_ids: expected a list of at most 64 token ids"));
  EXPECT_EQ(refusal(R"("repetition_penalty": 0)"), "repetition_penalty: expected a number > 0 and <= 10, found 0");
  EXPECT_EQ(refusal(R"("min_tokens": 17)"), "min_tokens: expected at most max_tokens, which is 16, found 17");
  EXPECT_EQ(chat_refusal(R"("top_logprobs": 2)"), "top_logprobs: only goes with \"logprobs\": true");
  EXPECT_EQ(completion(completion_with(R"("logprobs": 1, "echo": true)")).sampling.prompt_logprobs, 1);
  EXPECT_FALSE(completion(completion_with(R"("logprobs": 1)")).sampling.prompt_logprobs);
}

TEST(OpenAiRequest, WhatIsNotThereIsAcceptedAtTheValueThatChangesNothing) {
  EXPECT_EQ(refusal(R"("presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "min_p": 0, "min_tokens": 0, "logprobs": null,
                       "logit_bias": {}, "suffix": "", "stop_token_ids": [], "skip_special_tokens": true)"),
            "accepted");
  EXPECT_EQ(chat_refusal(R"("logprobs": false, "top_logprobs": null, "response_format": {"type": "text"}, "tool_choice": "auto", "logit_bias": null)"),
            "accepted");
  EXPECT_EQ(refusal(R"("suffix": "s")"), "suffix: \"s\" is not supported; expected \"\"");
  EXPECT_EQ(refusal(R"("best_of": 3)"), "best_of: 3 is not supported; expected n, which is 1");
  EXPECT_THAT(chat_refusal(R"("response_format": {"type": "grammar"})"), HasSubstr("response_format: \"grammar\" is not supported"));
  EXPECT_EQ(refused(parse_completion_request(completion_with(R"("suffix": "s")"))).code, "unsupported_value");
}

TEST(OpenAiRequest, ConstraintsAreReadInTheirForms) {
  using Kind = TextConstraint::Kind;
  const auto constraint = [](const std::string& more) { return std::get<OpenAiCall>(parse_chat_request(chat_with(more))).sampling.constraint; };
  const std::string schema = R"({"type":"object","properties":{"b":{"type":"null"},"a":{"type":"null"}}})";  // in this order
  const TextConstraint expected{Kind::kJsonSchema, schema};
  EXPECT_EQ(constraint(R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": )" + schema + "}}"), expected);
  EXPECT_EQ(constraint(R"("guided_json": )" + schema), expected);
  EXPECT_EQ(constraint(R"("structured_outputs": {"json": )" + schema + R"(, "regex": null})"), expected);
  EXPECT_EQ(constraint(R"("guided_json": "{\"type\": \"null\"}")"), (TextConstraint{Kind::kJsonSchema, R"({"type": "null"})"}));
  EXPECT_EQ(constraint(R"("response_format": {"type": "json_object"})"), (TextConstraint{Kind::kJsonObject, ""}));
  EXPECT_EQ(constraint(R"("structured_outputs": {"json_object": true})"), (TextConstraint{Kind::kJsonObject, ""}));
  EXPECT_EQ(constraint(R"("guided_regex": "a+")"), (TextConstraint{Kind::kRegex, "a+"}));
  EXPECT_EQ(constraint(R"("guided_choice": ["a", "b"], "response_format": {"type": "text"})"), (TextConstraint{Kind::kChoice, R"(["a","b"])"}));
  EXPECT_EQ(constraint(R"("guided_regex": null)"), TextConstraint{});
  EXPECT_EQ(std::get<OpenAiCall>(parse_completion_request(completion_with(R"("guided_regex": "a+")"))).sampling.constraint, (TextConstraint{Kind::kRegex, "a+"}));
}

TEST(OpenAiRequest, ConstraintsThatAreWrongAreRefusedByTheirField) {
  EXPECT_THAT(refusal(R"x("guided_regex": "a(?=b)")x"), HasSubstr("guided_regex: lookahead at byte 1 is not supported"));
  EXPECT_THAT(refusal(R"("guided_regex": 3)"), HasSubstr("guided_regex: expected a regular expression, found 3"));
  EXPECT_THAT(refusal(R"("guided_json": {"properties": {"a": {"not": {}}}})"), HasSubstr("guided_json: #/properties/a: the keyword 'not' is not supported"));
  EXPECT_THAT(refusal(R"("guided_json": [1])"), HasSubstr("guided_json: expected a JSON schema, found a list"));
  EXPECT_THAT(refusal(R"("guided_choice": [])"), HasSubstr("guided_choice: expected a list of at least one text"));
  EXPECT_THAT(refusal(R"("guided_choice": ["a"], "guided_regex": "a")"), HasSubstr("guided_choice: does not go with guided_regex"));
  EXPECT_THAT(refusal(R"("response_format": {"type": "json_schema"})"), HasSubstr("response_format: expected {\"type\": \"text\"}"));
  EXPECT_THAT(refusal(R"("response_format": "json")"), HasSubstr("response_format: expected"));
  EXPECT_THAT(refusal(R"("structured_outputs": {"grammar": "x"})"), HasSubstr("structured_outputs: grammar is not supported"));
  EXPECT_THAT(refusal(R"("structured_outputs": {"regex": "x", "choice": ["x"]})"), HasSubstr("expected one constraint, found several"));
  EXPECT_THAT(refusal(R"("guided_grammar": "x")"), HasSubstr("guided_grammar"));
  EXPECT_THAT(refusal(R"("guided_json": {"type": "string", "maxLength": 1000000000})"), HasSubstr("expected fewer or smaller repetitions"));
}

TEST(OpenAiRequest, FieldsWithoutInfluenceAreAccepted) {
  EXPECT_EQ(refusal(R"("user": "u", "request_id": "r")"), "accepted");
  EXPECT_EQ(chat_refusal(R"("user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "auto", "parallel_tool_calls": false)"), "accepted");
}

TEST(OpenAiRequest, AnUnknownFieldIsRefusedWithTheNearestKnownOne) {
  const OpenAiRefusal refusal = refused(parse_completion_request(completion_with(R"("max_token": 5)")));
  EXPECT_EQ(refusal.message, "unknown key 'max_token'; did you mean 'max_tokens'?");
  EXPECT_EQ(refusal.param, "max_token");
  EXPECT_EQ(refusal.code, "unknown_parameter");
  EXPECT_THAT(chat_refusal(R"("prompt": "p")"), HasSubstr("unknown key 'prompt'"));
}

TEST(OpenAiRequest, RequiresAModelAndAPrompt) {
  EXPECT_EQ(refused(parse_completion_request(R"({"prompt": "p"})")).message, "model: is missing");
  EXPECT_EQ(refused(parse_completion_request(R"({"model": "m", "prompt": null})")).message, "prompt: is missing");
  EXPECT_EQ(refused(parse_chat_request(R"({"model": "m"})")).param, "messages");
  EXPECT_EQ(refused(parse_chat_request(R"({"model": "m"})")).code, "missing_required_parameter");
}

TEST(OpenAiRequest, RefusesWhatIsNoJsonObject) {
  for (const char* bad : {"", "{", "[]", "7", "\"x\"", "{\"model\": \"\xff\"}"}) {
    EXPECT_EQ(refused(parse_completion_request(bad)).code, "invalid_json") << bad;
    EXPECT_EQ(refused(parse_chat_request(bad)).code, "invalid_json") << bad;
  }
  const std::string deep = completion_with("\"metadata\": " + std::string(20000, '[') + std::string(20000, ']'));
  EXPECT_THAT(refused(parse_completion_request(deep)).message, HasSubstr("nested deeper than 64"));
}

TEST(OpenAiRequest, FieldsThatGoTogetherAreCheckedTogether) {
  EXPECT_EQ(refusal(R"("stream_options": {"include_usage": true})"), "stream_options: only goes with \"stream\": true");
  EXPECT_EQ(refused(parse_completion_request(R"({"model": "m", "prompt": ["a", "b"], "n": 65})")).message,
            "n: 65 choices of 2 prompts; expected at most 128 in all");
  EXPECT_EQ(refused(parse_completion_request(R"({"model": "m", "prompt": [1], "echo": true})")).param, "echo");
}

TEST(OpenAiRequest, MessagesTakeTheFormThatTemplatesKnow) {
  const OpenAiCall call = chat(R"({"model": "m", "messages": [
      {"role": "developer", "content": "be brief"},
      {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "role": "user", "name": "Ann"},
      {"role": "assistant", "content": null, "refusal": null,
       "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"z\": 1, \"a\": 2}"}}]},
      {"role": "tool", "tool_call_id": "1", "content": "7"}]})");
  EXPECT_EQ(call.messages,
            R"([{"role":"system","content":"be brief"},{"content":"a\nb","role":"user","name":"Ann"},)"
            R"({"role":"assistant","content":"","refusal":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"z":1,"a":2}}}]},)"
            R"({"role":"tool","tool_call_id":"1","content":"7"}])");
}

TEST(OpenAiRequest, NamesThePlaceOfABadMessage) {
  const auto message = [](const std::string& value) { return refused(parse_chat_request(R"({"model": "m", "messages": [)" + value + "]}")); };
  EXPECT_EQ(message("").message, "messages: expected a list of 1 to 10,000 messages, found a list");
  EXPECT_EQ(message("5").message, "messages[0]: expected an object, found 5");
  EXPECT_EQ(message(R"({"role": "alien", "content": "x"})").message,
            "messages[0].role: expected system, developer, user, assistant or tool, found \"alien\"");
  EXPECT_EQ(message(R"({"content": "x"})").message, "messages[0].role: expected a text, found nothing");
  EXPECT_EQ(message(R"({"role": "user"})").message, "messages[0].content: expected a text or a list of parts, found nothing");
  EXPECT_EQ(message(R"({"role": "assistant", "content": null})").param, "messages[0].content");
  EXPECT_EQ(message(R"({"role": "user", "content": []})").param, "messages[0].content");
  EXPECT_EQ(message(R"({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]})").message,
            "messages[0].content[0].type: 'image_url' is not supported; expected text");
  EXPECT_EQ(message(R"({"role": "user", "content": "x", "tool_calls": []})").param, "messages[0].tool_calls");
  EXPECT_EQ(message(R"({"role": "assistant", "tool_calls": [{"function": {}}]})").param, "messages[0].tool_calls[0].function.name");
  EXPECT_EQ(message(R"({"role": "user", "content": "x", "contents": "y"})").code, "unknown_parameter");
}

TEST(OpenAiRequest, ArgumentsWithVeryManyKeysAreRefused) {
  const auto call_with = [](int num_keys) {
    nlohmann::json arguments = nlohmann::json::object();
    for (int i = 0; i < num_keys; ++i) arguments[std::to_string(i)] = 0;
    const nlohmann::json call = {{"type", "function"}, {"function", {{"name", "f"}, {"arguments", arguments.dump()}}}};
    return parse_chat_request(nlohmann::json{{"model", "m"}, {"messages", {{{"role", "assistant"}, {"tool_calls", {call}}}}}}.dump());
  };
  EXPECT_FALSE(std::holds_alternative<OpenAiRefusal>(call_with(300)));
  EXPECT_THAT(refused(call_with(600)).message, HasSubstr("messages[0].tool_calls[0].function.arguments: expected an object with fewer keys"));
}

TEST(OpenAiRequest, VariablesReachTheTemplate) {
  EXPECT_EQ(chat(chat_with(R"("chat_template_kwargs": {"enable_thinking": false}, "reasoning_effort": "low")")).variables,
            R"({"reasoning_effort":"low","enable_thinking":false})");
  EXPECT_EQ(chat(chat_with(R"("chat_template_kwargs": null)")).variables, "");
}

TEST(OpenAiRequest, ChoicesHaveSeedsOfTheirOwnAndTheFirstOneTheRequests) {
  EXPECT_EQ(choice_seed(7, 0), 7u);
  EXPECT_NE(choice_seed(7, 1), choice_seed(7, 2));
  EXPECT_NE(choice_seed(7, 1), choice_seed(8, 1));
  EXPECT_EQ(choice_seed(7, 1), choice_seed(7, 1));
}

}  // namespace
}  // namespace penstock::text
